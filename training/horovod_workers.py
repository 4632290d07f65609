"""Several processes that train one network, by Horovod."""
import contextlib
import os
import sys
import threading

import numpy as np
import tensorflow as tf

from training import device
from training.errors import UserError
from training.workers import Alone

# How long the others wait for worker 0, which may have to fetch MNIST.
WAIT_SECONDS = 1800


class HorovodWorkers(Alone):
    """The workers that horovodrun began; the methods are those of `Alone`.

    Attributes:
        size: int, how many they are.
    """
    lost_errors = (tf.errors.UnknownError, tf.errors.AbortedError)

    def __init__(self):
        """Joins the others.

        Raises:
            UserError: Horovod is not installed.
        """
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise UserError(
                '--horovod: Horovod is missing (%s): make horovod, or '
                'HOROVOD_WITH_TENSORFLOW=1 pip install --no-build-isolation '
                'horovod==0.28.1' % str(error).splitlines()[0])
        hvd.init()
        self._hvd = hvd
        self._rank, self.size = hvd.rank(), hvd.size()
        self.is_rank0 = self._rank == 0
        # A GPU each. As gpu_options.visible_device_list has it, TensorFlow
        # aborts where there is none.
        gpus = os.environ.get('CUDA_VISIBLE_DEVICES')
        gpus = [str(hvd.local_rank())] * hvd.local_size() if gpus is None else (
            gpus.split(',') + [''] * hvd.local_size())
        os.environ['CUDA_VISIBLE_DEVICES'] = gpus[hvd.local_rank()]

    def on_rank0(self, what):
        told = None
        try:
            if self.is_rank0:
                told = [what()]
        finally:
            told = self._broadcast(told)
        if told is None:
            sys.exit(1)
        return told[0]

    @contextlib.contextmanager
    def rank0_first(self):
        if not self.is_rank0:
            if self._broadcast(None) is None:
                sys.exit(1)
            yield
            return
        done = None
        try:
            yield
            done = True
        finally:
            self._broadcast(done)

    def _broadcast(self, told):
        """Returns, on all workers, what worker 0 gives."""
        def give_up():
            sys.__stderr__.write(
                'error: worker 0 has kept worker %d waiting for %d seconds: see '
                'what it does, and run again\n' % (self._rank, WAIT_SECONDS))
            os._exit(1)

        # Horovod's own watch over workers that stall takes no notice here.
        watch = threading.Timer(WAIT_SECONDS, give_up)
        watch.daemon = True
        config = tf.ConfigProto(device_count={'GPU': 0})
        # The first session: see there. The flags are not known yet.
        device.share_cores(config, '--dynamic_rnn' in sys.argv, self)
        try:
            if not self.is_rank0:
                watch.start()
            with tf.Graph().as_default(), tf.Session(config=config) as sess:
                return self._hvd.broadcast_object(told, session=sess,
                                                  name='told')
        except tf.errors.OpError as error:
            raise UserError(
                'a worker was lost (%s): see what it said, and run again'
                % str(error).splitlines()[0])
        finally:
            watch.cancel()

    @contextlib.contextmanager
    def quiet(self):
        if self.is_rank0:
            yield
            return
        with open(os.devnull, 'w') as nowhere, \
                contextlib.redirect_stdout(nowhere), \
                contextlib.redirect_stderr(nowhere):
            yield

    def check_batch_size(self, batch_size):
        if batch_size % self.size:
            raise UserError(
                '--batch_size %d cannot be shared by %d workers: name a multiple '
                'of %d' % (batch_size, self.size, self.size))

    def shard(self, batch):
        return [part[self._rank * len(part) // self.size:
                     (self._rank + 1) * len(part) // self.size]
                for part in batch]

    def share_of_cores(self, cores):
        return cores // self._hvd.local_size()

    def seed(self, seed):
        # Apart, or all would drop the same units.
        return super(HorovodWorkers, self).seed(seed + 10 ** 6 * self._rank)

    def distribute(self, optimizer):
        return self._hvd.DistributedOptimizer(optimizer)

    def broadcast_variables(self, sess):
        sess.run(self._hvd.broadcast_global_variables(0))

    def loss_and_stops(self, loss, stopped):
        stop = tf.py_func(lambda: np.float32(stopped()), [], tf.float32)
        stop.set_shape([])
        # One all-reduce for both, so that the second costs nothing.
        return tf.unstack(self.mean(tf.stack([loss, stop])))

    def mean(self, tensor):
        """Returns the mean of all workers' tensors."""
        return self._hvd.allreduce(tensor)

    def agree_to_stop(self, stopped, stops):
        return any(stops)

    def command(self, command):
        return ['horovodrun', '-np', str(self.size), *command, '--horovod']
