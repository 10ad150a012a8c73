"""Turn an image, or as many as you like, into videos: `python sample.py --help` explains every parameter.

The command of a checkout. Its story is in `sgm/__main__.py`, so that `python -m sgm` is the same wherever sgm is.
"""

import sys

from sgm.__main__ import sample
from sgm.parameters.sample_command import run

if __name__ == "__main__":
    sys.exit(run(sample))
