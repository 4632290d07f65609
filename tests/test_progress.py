import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

from conftest import QUICK, start


def test_bar_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack('4H', 24, 120, 0, 0))
    running = start(*QUICK, '--steps', 400, cwd=tmp_path, stderr=theirs,
                    stdout=subprocess.PIPE)
    os.close(theirs)
    shown = b''
    try:
        while True:
            shown += os.read(ours, 4096)
    except OSError:  # the other end is closed
        os.close(ours)
    stdout, _ = running.communicate()
    assert running.returncode == 0
    assert re.fullmatch(r'\(1257, 784\)\n'
                        r'Iter15, step 200, training accuracy \S+\n'
                        r'Iter31, step 400, training accuracy \S+\n'
                        r'test accuracy \S+\n', stdout)
    last = re.split('[\r\n]+', shown.decode().strip())[-1]
    assert re.fullmatch(
        r'training: 100%\|.*\| 400/400 \[\d\d:\d\d<00:00, +\d+\.\d+step/s, '
        r'accuracy=\d\.\d{3}, loss=\d\.\d{4}\]', last), last
    assert 'step 50 of' not in shown.decode()
