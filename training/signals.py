"""Ctrl-C and SIGTERM: a training ends after the step that it is in."""
import os
import signal
import sys
import threading


class StopSignals(object):
    """Notes Ctrl-C (SIGINT) and SIGTERM, in a with statement.

    A second one of either ends the process at once, with 128 + its number.

    Attributes:
        number: int, the signal's; None while there was none.
    """

    def __init__(self):
        self.number = None

    def __enter__(self):
        # Python calls its handlers between two steps only, and a step can be
        # long; what wakes the pipe up comes through at any time.
        reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._handlers = {
            number: signal.signal(number, lambda number, frame: None)
            for number in (signal.SIGINT, signal.SIGTERM)}
        self._wakeup = signal.set_wakeup_fd(self._writing)
        threading.Thread(target=self._watch, args=[reading],
                         daemon=True).start()
        return self

    def arrived(self):
        """Returns whether there was one."""
        return self.number is not None

    def _watch(self, reading):
        for number, in iter(lambda: os.read(reading, 1), b''):
            if self.number is not None:
                os._exit(128 + number)
            self.number = number
            print('\nstopping after this step; a second time stops at once',
                  file=sys.stderr)
        os.close(reading)

    def __exit__(self, *error):
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._writing)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
