"""How far a training is: a bar on a terminal, elsewhere lines on stderr."""
import sys

import tqdm


class Progress(object):
    """Shows the steps of a training, until it is closed."""

    def __init__(self, steps, done):
        """
        Args:
            steps: int, how far the training is to go.
            done: int, the steps behind it.
        """
        self._steps = steps
        self._bar = tqdm.tqdm(desc='training', total=steps, initial=done,
                              unit='step', dynamic_ncols=True, disable=None)

    def close(self):
        """Leaves the bar as it is."""
        self._bar.close()

    def update(self):
        """Moves on by a step."""
        self._bar.update()

    def log(self, step, rate, loss, accuracy):
        """Shows what was noted of a step; rate is in steps a second."""
        self._bar.set_postfix(loss='%.4f' % loss, accuracy='%.3f' % accuracy)
        if self._bar.disable:
            print('step %d of %d, %.1f steps/s, loss %.4f, accuracy %.3f'
                  % (step, self._steps, rate, loss, accuracy), file=sys.stderr)

    def print(self, line):
        """Prints a line on stdout, above the bar."""
        self._bar.write(line)
