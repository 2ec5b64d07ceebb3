"""`python -m herd.recorder IN OUT`: started by the router, with the two ends of its pipes."""

import sys

from herd.recorder.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
