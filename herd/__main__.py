"""`python -m herd` is `herd`."""

import sys

from herd.cli import main

sys.exit(main())
