"""One run: all that happens around the steps of a training."""
import contextlib
import platform
import random
import shlex
import socket
import sys
import time

import numpy as np
import tensorflow as tf

from training import (
    command_line,
    datasets,
    device,
    divergence,
    evaluation,
    memory,
    run_directory,
    saved_model,
)
from training.averages import MovingAverages
from training.checkpoints import Checkpoints
from training.errors import Stopped, UserError
from training.mnist_files import MIRRORS
from training.notes import Notes
from training.run_directory import RunDirectory
from training.signals import StopSignals
from training.workers import ALONE


class Run(object):
    """A training and what is kept of it, in a with statement.

    The methods are called in the order in which they stand here. `steps` gives
    the steps one by one; `after_step` and `log` are called in each of them.
    With several workers, worker 0 alone writes and shows anything.

    Attributes:
        seed: int, what the weights, the dropout and the order of the data are
            drawn from. It is drawn itself if the flags give none.
        mirrors: where this worker may fetch MNIST from, a list of addresses.
        graph_seed: int, for `tf.set_random_seed`; `open_directory` sets it.
    """

    def __init__(self, flags, config, workers=ALONE):
        """Says where the graph will run and, to resume a run, locks its folder.

        Args:
            flags: as `command_line.Parser` gives them.
            config: `tf.ConfigProto` of the session to come, which is changed.
            workers: those that train together.

        Raises:
            UserError: it cannot run like that.
        """
        self._started = time.perf_counter()
        self._flags, self._config, self._workers = flags, config, workers
        self._exits = contextlib.ExitStack()
        self._signals = StopSignals()
        # Worker 0's alone.
        self._directory = self._checkpoints = self._notes = None
        self._step, self._stops = 0, []
        device.share_cores(config, flags.dynamic_rnn, workers)
        self._device = device.choose(config, flags.device)
        if (workers.on_rank0(lambda: self._device.name) == 'CPU') != (
                self._device.name == 'CPU'):
            raise UserError(
                'this worker, on %s, would train on another kind of device than '
                'worker 0: begin one worker a GPU, or name --device cpu'
                % socket.gethostname())
        self.seed = workers.on_rank0(self._lock_and_seed)
        self.mirrors = []
        if workers.is_rank0:
            self.mirrors = [flags.mirror] if flags.mirror else MIRRORS

    def _lock_and_seed(self):
        flags = self._flags
        self._workers.check_batch_size(flags.batch_size)
        if flags.resume:
            self._take(RunDirectory(flags.resume))
        # Drawn here, so that config.json tells it and a run that is resumed
        # finds its place in the data.
        return (random.SystemRandom().randrange(2 ** 31 - 1)
                if flags.seed is None else flags.seed)

    def _take(self, directory):
        self._directory = directory
        self._exits.callback(directory.unlock)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self._exits.close()
        if isinstance(error, self._workers.lost_errors):
            raise self._worker_lost()
        told = device.explain(error)
        if told:
            raise told

    def _worker_lost(self):
        if not self._workers.is_rank0:
            return SystemExit(1)  # worker 0 says it
        saved = self._checkpoints and self._checkpoints.step
        resume = ('go on with --resume %s, which keeps %s'
                  % (self._directory.path, self._checkpoints.kept())
                  if saved else 'begin again')
        return UserError('a worker was lost at step %d: see what it said, and %s'
                         % (self._step, resume))

    def open_directory(self):
        """Makes the run's folder, or checks the one to go on in.

        The data must be there.

        Raises:
            UserError: the folder can't be used, or the data is not that of the
                run or of worker 0.
        """
        flags = self._flags
        self._sha256 = datasets.fingerprint(flags.dataset, flags.data_dir)
        if self._workers.on_rank0(lambda: self._sha256) != self._sha256:
            raise UserError(
                '%s on %s does not hold the files that worker 0 reads: put the '
                'same ones on every machine'
                % (flags.data_dir, socket.gethostname()))
        path, step = self._workers.on_rank0(self._find_directory)
        print('run directory: ' + path, file=sys.stderr)
        # Moved on with the steps, or dropout would draw again what it began
        # with.
        self.graph_seed = self._workers.seed(self.seed + step)

    def _find_directory(self):
        flags = self._flags
        if not flags.resume:
            self._take(run_directory.create(flags.run_dir))
        elif self._sha256 != flags.data_sha256:
            raise UserError(
                '%s does not hold the files that %s was trained on: name the '
                'folder that does with --data_dir'
                % (flags.data_dir, flags.resume))
        path = self._directory.path
        return path, max(run_directory.checkpoint_steps(path), default=0)

    def watch(self, m):
        """Adds to the graph what is looked at in each step.

        Args:
            m: a `Model`, of the default graph.

        Returns:
            A list to fetch with m.train_op, for `after_step`.
        """
        self._m = m
        self._averages = MovingAverages(m.train_op, self._flags.ema_decay)
        return [self._workers.loss_and_stops(m.cross_entropy,
                                             self._signals.arrived),
                divergence.weights_sum(m.train_op), self._averages.update]

    def steps(self, sess, mnist):
        """Gives the number of each step that is to be done, from 1.

        A run that is resumed goes on after the last one that was saved; the
        variables and `mnist.train` are then set to where they stood. After the
        last step the run is saved; worker 0 goes on from there alone, and the
        others exit.

        Args:
            sess: `tf.Session`, whose variables were initialized.
            mnist: the data, as `data.read_data_sets` gives it.

        Raises:
            UserError: there is something that the user can repair.
            Stopped: the user stopped it.
        """
        flags = self._flags
        self._begin(sess, mnist)
        self._exits.enter_context(self._signals)
        self._exits.enter_context(memory.kept())
        loop = self._exits.enter_context(contextlib.ExitStack())
        if self._notes:
            loop.enter_context(self._notes)
        while self._step < flags.steps and not self._is_stopping():
            self._step += 1
            self._step_started = time.perf_counter()
            yield self._step
            if (self._notes and self._step < flags.steps
                    and self._step % (2 * flags.save_every) == 0
                    and not self._is_stopping()):
                self._validate()
        loop.close()
        if not self._workers.is_rank0:
            sys.exit(self._stopped_status() if self._is_stopping() else 0)
        if self._checkpoints.step != self._step:
            self._checkpoints.save(self._step)
        self._stop_if(self._is_stopping())

    def _begin(self, sess, mnist):
        """Restores the run, and writes down what it is."""
        flags = self._flags
        self._sess, self._mnist = sess, mnist
        if self._workers.is_rank0:
            self._checkpoints = Checkpoints(self._directory, sess)
        if flags.resume:
            self._step = self._workers.on_rank0(
                lambda: self._checkpoints.restore(flags.steps))
            for _ in range(self._step):  # to the place in the data
                mnist.train.next_batch(flags.batch_size)
        self._resumed_from = self._step
        self._workers.broadcast_variables(sess)
        if self._workers.is_rank0:
            self._write_config()
            self._notes = Notes(self._directory, flags, self._step, sess.graph)

    def _write_config(self):
        self._directory.write('config.json', run_directory.to_json(
            command_line.config(self._flags, seed=self.seed,
                                run_dir=self._directory.path,
                                data_sha256=self._sha256)),
            'mend that, or name another folder')

    def after_step(self, watched):
        """Looks at what a step gave, and saves where it is time.

        Args:
            watched: the values of what `watch` returned.

        Raises:
            UserError: the loss or a weight is no number any more, or the
                system doesn't let it write.
        """
        seconds = time.perf_counter() - self._step_started
        (loss, *self._stops), weights_sum, _ = watched
        self._check_numbers(loss, weights_sum)
        if not self._notes:
            return
        self._notes.after_step(loss, seconds)
        if (self._step % self._flags.save_every == 0
                and self._step < self._flags.steps):
            self._checkpoints.save(self._step)

    def _check_numbers(self, loss, weights_sum):
        if not divergence.has_come_apart(loss, weights_sum):
            return
        if not self._workers.is_rank0:
            sys.exit(1)
        raise UserError(
            'the training came apart at step %d, with a loss of %g and a sum of '
            'all weights of %g: begin a new run with a lower --lr or a higher '
            '--keep_prob; %s keeps %s'
            % (self._step, loss, weights_sum, self._directory.path,
               self._checkpoints.kept()))

    def is_logged(self, step):
        """Returns whether `log` notes this step."""
        return bool(self._notes) and self._notes.is_logged(step)

    def print(self, line):
        """Prints a line of the transcript."""
        if self._notes:
            self._notes.print(line)

    def log(self, accuracy):
        """Notes the step, if `is_logged`.

        Args:
            accuracy: float, of the batch just trained on, without dropout.
        """
        if self.is_logged(self._step):
            self._notes.log(self._step, accuracy)

    def averages(self):
        """Returns a feed_dict: {}, or with --ema_decay the averaged weights."""
        return self._averages.feed(self._sess)

    def test_in_parts(self):
        """Returns the accuracy on the test images, where all at once don't fit."""
        print('note: there is no memory for all test images at once; they are '
              'tested in parts', file=sys.stderr)
        accuracy, _ = self._evaluate(self._mnist.test)
        return accuracy

    def _evaluate(self, of):
        return evaluation.evaluate(self._sess, self._m, of.images, of.labels,
                                   self.averages(), self._flags.batch_size)

    def _validate(self):
        accuracy, loss = self._evaluate(self._mnist.validation)
        self._notes.validate(self._step, accuracy, loss)
        return accuracy

    def finish(self, test_accuracy, build_export):
        """Writes what a run that is done holds.

        Args:
            test_accuracy: float.
            build_export: `model.build_export`.

        Raises:
            UserError: the system says no.
            Stopped: the user stopped it before this.
        """
        flags = self._flags
        validation_accuracy = self._validate()
        self._stop_if(self._signals.arrived())  # worker 0 is alone by now
        self._notes.test(self._step, test_accuracy)
        if self._device.unused:
            print('note: ' + self._device.unused, file=sys.stderr)
        saved_model.export(
            self._directory, self._config, lambda: build_export(
                flags.hidden_size, flags.layer_num, flags.dynamic_rnn),
            flags.steps, flags.ema_decay)
        self._notes.draw()
        # Last, since it says that the run is done.
        self._directory.write('result.json', run_directory.to_json(
            self._result(test_accuracy, validation_accuracy)))

    def _result(self, test_accuracy, validation_accuracy):
        flags, step_seconds = self._flags, self._notes.step_seconds
        return {
            'dataset': datasets.title(flags.dataset, flags.data_dir,
                                      self._sha256),
            'steps': flags.steps,
            'resumed_from_step': self._resumed_from,
            'test_accuracy': float('%g' % test_accuracy),
            'validation_accuracy': float('%g' % validation_accuracy),
            'median_step_seconds': (float(np.median(step_seconds))
                                    if step_seconds else None),
            'seconds': time.perf_counter() - self._started,
            'device': self._device.name,
            'versions': {'python': platform.python_version(),
                         'tensorflow': tf.__version__, 'numpy': np.__version__},
        }

    def _is_stopping(self):
        return self._workers.agree_to_stop(self._signals.arrived(), self._stops)

    def _stopped_status(self):
        number = self._signals.number
        return 1 if number is None else 128 + number  # 1: another worker's

    def _stop_if(self, wanted):
        """Raises `Stopped`, if that is wanted."""
        if not wanted:
            return
        command = self._workers.command([sys.executable, sys.argv[0],
                                         '--resume', self._directory.path])
        raise Stopped(self._stopped_status(),
                      'stopped after step %d; to go on from there:\n%s' % (
                          self._step, ' '.join(map(shlex.quote, command))))
