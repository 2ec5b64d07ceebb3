"""`python -m node` is `herd-node`."""

import sys

from .cli import main

sys.exit(main())
