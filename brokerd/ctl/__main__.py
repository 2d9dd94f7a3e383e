# For `python -m brokerd.ctl`.
import sys

from brokerd.ctl import main

sys.exit(main())
