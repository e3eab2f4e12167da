"""``python -m synthmtl`` is ``synthmtl``, for launchers that start modules (``accelerate launch -m synthmtl ...``)."""

import sys

from synthmtl.cli import main

if __name__ == "__main__":
    sys.exit(main())
