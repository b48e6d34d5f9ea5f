"""Parts of train_sc_vae.py: shapes, data, what must survive a kill, and measuring."""
