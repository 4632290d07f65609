import subprocess
import sys

from conftest import ROOT


def test_memory_is_kept_for_the_next_step_and_then_given_back():
    # A process of its own, since one that has run tests has memory to spare.
    before, kept, after = map(int, subprocess.run(
        [sys.executable, '-c', """if True:
            import os
            import numpy as np
            from training import memory

            def tell_resident():
                with open('/proc/self/statm') as f:
                    print(int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))

            tell_resident()
            with memory.kept():
                np.ones(2 ** 24, np.uint8)  # and away with it
                tell_resident()
            tell_resident()"""],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
        universal_newlines=True).stdout.split())
    assert kept - before > 0.9 * 2 ** 24
    assert after - before < 0.1 * 2 ** 24
