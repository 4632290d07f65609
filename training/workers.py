"""The processes that train one network: this one alone, or several with Horovod."""
import contextlib
import os
import re
import signal
import sys

from training.environment import SIGNALS, import_tensorflow
from training.errors import UserError, pinned, reason


class Workers(object):
    """The processes that train together. Rank 0 keeps and shows everything.

    Attributes:
        rank: int, the number of this process.
        size: int, how many processes there are.
        on_this_machine: int, how many of them share this machine.
    """

    def __init__(self, hvd=None, config=None):
        self._hvd = hvd  # `horovod.tensorflow`, initialized; None for one process
        self._config = config  # `tf.ConfigProto` of the sessions that broadcast
        self.rank, self.size, self.on_this_machine = (
            (hvd.rank(), hvd.size(), hvd.local_size()) if hvd else (0, 1, 1))

    def on_rank0(self, function):
        """Call a function on rank 0 and return its result on all ranks.

        If the function fails, rank 0 raises its exception and the others exit with 1.
        """
        if self.size == 1:
            return function()
        result = None
        try:
            if self.rank == 0:
                result = [function()]
        finally:
            result = self._broadcast(result)
        if result is None:
            sys.exit(1)
        return result[0]

    def _broadcast(self, result):
        import tensorflow as tf
        with tf.Graph().as_default(), tf.Session(config=self._config) as sess:
            try:
                return self._hvd.broadcast_object(result, session=sess, name='result')
            except tf.errors.OpError as error:
                raise UserError('a worker was lost (%s): see what it said, and run '
                                'again' % reason(error))

    @contextlib.contextmanager
    def quiet(self):
        """Let only rank 0 print, and only rank 0 stop at one of `SIGNALS`.

        The others end when they lose rank 0.
        """
        if self.rank == 0:
            yield
            return
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere), \
                contextlib.redirect_stderr(nowhere):
            yield

    def shard(self, batch):
        """Return this worker's part of a batch (images, labels), all of it if alone."""
        return [part[self.rank * len(part) // self.size:
                     (self.rank + 1) * len(part) // self.size] for part in batch]

    def distribute(self, optimizer):
        """Return an optimizer whose gradients are the mean over the workers."""
        return self._hvd.DistributedOptimizer(optimizer) if self._hvd else optimizer

    def broadcast_variables(self, sess):
        """Give all workers the variables of rank 0: weights, slots and step."""
        if self._hvd:
            sess.run(self._hvd.broadcast_global_variables(0))

    def is_lost(self, error):
        """Return whether an exception says that another worker has ended."""
        return self.size > 1 and type(error).__name__ in (
            'UnknownError', 'AbortedError')


def launched():
    """Return how many processes horovodrun, Open MPI or MPICH says it started."""
    sizes = [os.environ.get(name, '') for name in (
        'HOROVOD_SIZE', 'OMPI_COMM_WORLD_SIZE', 'PMI_SIZE')]
    return max([1, *(int(size) for size in sizes if size.isdecimal())])


def join(argv):
    """Return the `Workers`; with --horovod in argv, those that horovodrun started."""
    if '--horovod' not in argv:
        return Workers()
    import_tensorflow()
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise UserError('--horovod: Horovod is missing (%s): run make horovod, or '
                        'HOROVOD_WITH_TENSORFLOW=1 pip install --no-build-isolation %s'
                        % (reason(error), pinned('horovod')))
    hvd.init()
    if hvd.size() == 1:
        if launched() > 1:
            raise UserError('%d workers were begun, but Horovod sees only one, as it '
                            'is built without MPI: begin them with horovodrun'
                            % launched())
        return Workers()
    # Give each process one GPU, unless a cluster has done so. TensorFlow aborts if
    # visible_device_list is set on a machine without a GPU, so use the environment.
    rank, gpus = hvd.local_rank(), os.environ.get('CUDA_VISIBLE_DEVICES')
    if gpus is None or ',' in gpus:
        os.environ['CUDA_VISIBLE_DEVICES'] = str(rank) if gpus is None else ''.join(
            gpus.split(',')[rank:rank + 1])
    return Workers(hvd, _first_config(argv, hvd.rank(), hvd.local_size()))


def _first_config(argv, rank, workers_here):
    """Return the config of the first session, before all flags are known.

    It decides how many threads the process has, and whether it sees its GPU.
    """
    import tensorflow as tf

    from training import device
    config = tf.ConfigProto()
    device.share_cores(config, '--dynamic_rnn' in argv, workers_here)
    on_cpu = re.search('--device[= ]cpu', ' '.join(argv))
    chosen = device.choose(config, 'cpu' if on_cpu else 'auto')
    if chosen.substitute and rank != 0:  # which will not print any more
        print('warning: the worker of rank %d trains on %s' % (rank, chosen.where),
              file=sys.stderr)
    config.device_count['GPU'] = 0
    return config
