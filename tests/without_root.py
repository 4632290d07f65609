"""Run one of the project's scripts without the rights of root.

    python tests/without_root.py SCRIPT ARG...
"""
import ctypes
import os
import runpy
import sys

CLONE_NEWUSER = 0x10000000  # of linux/sched.h

ctypes.CDLL(None).unshare(CLONE_NEWUSER)
sys.argv[:2] = [os.path.join(os.path.dirname(__file__), '..', sys.argv[1])]
runpy.run_path(sys.argv[0], run_name='__main__')
