"""``python -m speechbrain_kmdanet`` is ``kmdanet``."""

import sys

from speechbrain_kmdanet.command_line import main

if __name__ == "__main__":
    sys.exit(main())
