"""The C library's memory, which each step would ask the system for anew."""
import contextlib
import ctypes
import os


@contextlib.contextmanager
def kept():
    """Has the C library keep what one operation is done with for the next.

    It would give most of it back to the system, which then has to clear some
    20 MB for every step, and some GB for the test of 10,000 images. What is
    kept goes back in the end. The parameters' numbers, defaults and limits are
    glibc's (mallopt(3) and its malloc.c); another C library is left as it is.
    """
    libc = ctypes.CDLL(None) if os.name == 'posix' else None
    if not hasattr(libc, 'mallopt'):
        yield
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    libc.mallopt(M_MMAP_THRESHOLD, 2 ** 25)  # its limit
    libc.mallopt(M_TRIM_THRESHOLD, 2 ** 30)
    libc.mallopt(M_TOP_PAD, 2 ** 26)
    try:
        yield
    finally:
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD):
            libc.mallopt(parameter, 2 ** 17)
        libc.malloc_trim(0)
