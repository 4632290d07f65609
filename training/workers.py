"""The processes that train together, of which this is one.

`Alone` is one process. `horovod_workers.HorovodWorkers` are several, with the
same methods, so that no one else asks how many there are. What a user sees and
keeps is made by worker 0, whose rank is 0.
"""
import contextlib
import os

from training.errors import UserError
from training.packages import import_tensorflow


class Alone(object):
    """One process that trains by itself.

    Attributes:
        is_rank0: bool, whether this is worker 0.
        lost_errors: the exceptions that say that another worker is gone.
    """
    is_rank0 = True
    lost_errors = ()

    def on_rank0(self, what):
        """Has worker 0 call a function while the others wait.

        Returns:
            What it returned, on all of them.

        Raises:
            On worker 0 what it raised, and SystemExit(1) on the others.
        """
        return what()

    def rank0_first(self):
        """Returns a context manager: worker 0 goes through the block first.

        Raises:
            SystemExit(1): on the others, if it failed.
        """
        return contextlib.nullcontext()

    def quiet(self):
        """Returns a context manager that lets worker 0 alone be heard."""
        return contextlib.nullcontext()

    def check_batch_size(self, batch_size):
        """Raises a `UserError` if a batch can't be shared evenly."""

    def shard(self, batch):
        """Returns this worker's share of a batch, a sequence of arrays."""
        return batch

    def share_of_cores(self, cores):
        """Returns how many of so many cores are this worker's."""
        return cores

    def seed(self, seed):
        """Returns this worker's own seed for TensorFlow, below 2 ** 31."""
        return seed % 2 ** 31

    def distribute(self, optimizer):
        """Returns one whose gradients are the mean of all workers'."""
        return optimizer

    def broadcast_variables(self, sess):
        """Gives all workers the variables of worker 0: weights, slots, step."""

    def loss_and_stops(self, loss, stopped):
        """Returns tensors to fetch in each step, for `agree_to_stop`.

        Args:
            loss: float32 [], of this worker's share.
            stopped: a function that returns whether this worker was told to
                stop.

        Returns:
            A list: the loss of the whole batch and, with several workers, how
            many of them were told to stop, a share in [0, 1].
        """
        return [loss]

    def agree_to_stop(self, stopped, stops):
        """Returns whether all stop after this step.

        Args:
            stopped: bool, whether this worker was told to.
            stops: what the step gave for `loss_and_stops` after the loss.
        """
        return stopped

    def command(self, command):
        """Returns a command, a list of str, for as many workers as these."""
        return command


ALONE = Alone()


def launched():
    """Returns how many processes a launcher says that it began; 1 without one.

    horovodrun says it, and so do the launchers of Open MPI and of MPICH.
    """
    return max(int(os.environ.get(name, 1)) for name in (
        'HOROVOD_SIZE', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE'))


def join(horovod):
    """Joins the workers that horovodrun began, if horovod says so.

    Args:
        horovod: bool.

    Returns:
        A `HorovodWorkers` where there are several, else an `Alone`.

    Raises:
        UserError: TensorFlow or Horovod is not installed, or Horovod was not
            built for what began the workers.
    """
    if not horovod:
        return ALONE
    import_tensorflow()
    from training.horovod_workers import HorovodWorkers
    workers = HorovodWorkers()
    if workers.size > 1:
        return workers
    if launched() > 1:
        raise UserError(
            '%d workers were begun, and Horovod knows of one, as it is built without '
            'MPI: begin them with horovodrun' % launched())
    return ALONE
