"""`python -m keras_medseg`: the same as `keras-medseg`."""

import sys

from keras_medseg.cli import main

sys.exit(main())
