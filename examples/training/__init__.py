"""Parts of the training examples: shapes, data, what must survive a kill, the run itself, and measuring."""
