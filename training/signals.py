"""Ctrl-C, SIGTERM and SIGHUP: a training ends after the step that it is in."""
import contextlib
import os
import signal
import sys
import threading

STOPS = [signal.SIGINT, signal.SIGTERM]
# The last, which Windows has not, comes when the terminal goes away.
NUMBERS = STOPS + ([signal.SIGHUP] if hasattr(signal, 'SIGHUP') else [])


class StopSignals(object):
    """Notes Ctrl-C (SIGINT), SIGTERM and SIGHUP, in a with statement.

    A second Ctrl-C or SIGTERM ends the process at once, with 128 + its number.
    SIGHUP often comes twice, so a second one is ignored; under `nohup`, each is.

    Attributes:
        number: int, the signal's; None while there was none.
    """

    def __init__(self):
        self.number = None

    def __enter__(self):
        self._exits = contextlib.ExitStack()
        wakes = hasattr(os, 'set_blocking')  # not on Windows
        for number in NUMBERS:
            if number in STOPS or signal.getsignal(number) != signal.SIG_IGN:
                self._exits.callback(signal.signal, number, signal.signal(
                    number, lambda number, frame: wakes or self._note(number)))
        if wakes:
            self._watch()
        return self

    def __exit__(self, *error):
        self._exits.close()

    def arrived(self):
        """Returns whether there was one."""
        return self.number is not None

    def _watch(self):
        # Python calls its handlers between two steps only, and a step can be
        # long; what wakes the pipe up comes through at any time.
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        self._exits.callback(os.close, writing)
        self._exits.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(writing))
        threading.Thread(target=self._read, args=[reading], daemon=True).start()

    def _read(self, reading):
        for number, in iter(lambda: os.read(reading, 1), b''):
            if number in NUMBERS:
                self._note(number)
        os.close(reading)

    def _note(self, number):
        if self.number is None:
            self.number = number
            print('\nstopping after this step; a second time stops at once',
                  file=sys.stderr)
        elif number in STOPS:
            os._exit(128 + number)
