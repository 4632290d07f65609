"""What is noted of a training: on the bar, for TensorBoard, and at its end."""
import numpy as np

from training import figures, summaries
from training.progress import Progress


class Notes(object):
    """Notes loss, accuracy and speed of a training, in a with statement.

    The statement is around the steps alone: it shows the bar.

    Attributes:
        step_seconds: a list of floats, what each step took, from its batch to
            its loss.
    """

    def __init__(self, directory, flags, step, graph):
        """Begins the file for TensorBoard.

        Args:
            directory: `RunDirectory`.
            flags: those of the run.
            step: int, the steps behind it.
            graph: `tf.Graph` to show; one that is resumed shows it already.

        Raises:
            UserError: the system says no, as in all that notes something.
        """
        self._directory, self._flags = directory, flags
        self._summaries = summaries.SummaryWriter(
            directory, step + 1, None if flags.resume else graph)
        self._begun_at = step
        self.step_seconds, self._losses = [], []

    def __enter__(self):
        self._progress = Progress(self._flags.steps, self._begun_at)
        return self

    def __exit__(self, *error):
        self._progress.close()

    def print(self, line):
        """Prints a line on stdout, above the bar."""
        self._progress.print(line)

    def after_step(self, loss, seconds):
        """Takes what a step gave."""
        self._losses.append(loss)
        self.step_seconds.append(seconds)
        self._progress.update()

    def is_logged(self, step):
        """Returns whether `log` is called for this step."""
        return step % self._flags.log_every == 0 or step == self._flags.steps

    def log(self, step, accuracy):
        """Notes a step.

        Args:
            step: int.
            accuracy: float, of the batch just trained on, without dropout. The
                loss is the mean since the last note, with it.
        """
        rate = 1 / np.median(self.step_seconds[-len(self._losses):])
        loss, self._losses = np.mean(self._losses), []
        self._summaries.add(step, {
            'accuracy/training': accuracy, 'loss/training': loss,
            'steps_per_second': rate})
        self._progress.log(step, rate, loss, accuracy)

    def validate(self, step, accuracy, loss):
        """Notes accuracy and loss on the validation images, floats."""
        self._summaries.add(step, {'accuracy/validation': accuracy,
                                   'loss/validation': loss})

    def test(self, step, accuracy):
        """Notes the accuracy on the test images."""
        self._summaries.add(step, {'accuracy/test': accuracy})

    def draw(self):
        """Writes curves.png, of all sessions of the run."""
        self._directory.write('curves.png', figures.draw_curves(
            summaries.read(self._directory.path)))
