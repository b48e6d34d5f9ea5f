"""`python -m voxgen.cli` is the command `voxgen`."""

import sys

from ._main import main

sys.exit(main())
