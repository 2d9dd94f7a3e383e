# For `python -m brokerd.ctl`.
import sys

from brokerd.ctl import script

sys.exit(script())
