"""Tests of the whole, through its public doors."""

import os

# Two workers share two cores: OpenMP threads that wait for one another by spinning would take the other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
