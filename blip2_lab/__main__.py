"""`python -m blip2_lab` is `blip2-lab`."""

import sys

from blip2_lab.cli import main

sys.exit(main())
