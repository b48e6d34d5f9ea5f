"""`python -m voxgen.demo`."""

import sys

from ._main import main

sys.exit(main())
