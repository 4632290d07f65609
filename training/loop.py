"""What a run does besides the tutorial: hooks, Ctrl-C, the end."""
import contextlib
import os
import platform
import shlex
import signal
import sys
import threading
import time

import numpy as np
import tensorflow as tf

from training import device, metrics, saved_model
from training.checkpoints import CheckpointHook, DivergenceHook, Hook
from training.environment import SIGNALS
from training.errors import PROJECT, Stopped, UserError
from training.flags import config_of
from training.mnist_files import MIRRORS, open_files
from training.run_directory import RunDirectory, last_step


class Run(object):
    """A training and its hooks. Use it in a with statement, which makes a new graph.

    The methods are called in the order in which they stand here. They raise a
    `UserError` if the user must fix something, and `Stopped` if the user stopped it.

    Attributes:
        workers: `Workers`.
        mirrors: addresses to fetch MNIST from.
        names: list of str, the names of the classes, once the run has begun.
    """

    def __init__(self, flags, workers):
        """Lock the folder of a run that is resumed.

        Args:
            flags: `argparse.Namespace`, as `parse_flags` returns it.
            workers: `Workers`.
        """
        self._started = time.perf_counter()
        self._flags, self.workers = flags, workers
        self.mirrors = [flags.mirror] if flags.mirror else MIRRORS
        self._exits = contextlib.ExitStack()
        self._directory = RunDirectory(flags.resume or flags.run_dir)
        self._device = None  # `device.Device`, once it is chosen
        self._hooks, self._metrics, self._step = [], None, 0
        self._mnist = self.names = None
        self._resumed_from = workers.on_rank0(self._open)

    def _open(self):
        """Lock a run that is resumed; return the step of its checkpoint, or 0."""
        flags, workers = self._flags, self.workers.size
        if flags.batch_size % workers:
            raise UserError('--batch_size %d cannot be shared by %d workers: name a '
                            'multiple of %d' % (flags.batch_size, workers, workers))
        if workers > 1 and flags.dataset == 'mnist':
            open_files(flags.data_dir, self.mirrors)  # fetched by one process
        if not flags.resume:
            return 0
        self._directory.lock()
        return last_step(flags.resume)

    def __enter__(self):
        self._exits.enter_context(tf.Graph().as_default())
        # Without the step, a resumed run would repeat its dropout masks. Without the
        # rank, all workers would drop the same units.
        tf.set_random_seed((self._flags.seed + self._resumed_from
                            + 10 ** 6 * self.workers.rank) % 2 ** 31)
        return self

    def __exit__(self, kind, error, traceback):
        self._exits.close()
        self._directory.unlock()
        if self.workers.is_lost(error):
            if self.workers.rank != 0:
                sys.exit(1)  # rank 0 says it
            raise UserError('a worker was lost at step %d: see what it said, and go '
                            'on with --resume %s, which has %s' % (
                                self._step + 1, self._directory.path,
                                self._directory.kept()))
        run_dir = self._directory.path
        begun = run_dir is not None and last_step(run_dir)
        explained = device.explain(
            error, self._device is not None and self._device.name != 'CPU', not begun)
        if explained and begun:
            raise UserError('%s; then go on with --resume %s, which has %s'
                            % (explained, run_dir, self._directory.kept()))
        if explained:
            raise explained

    def on_device(self, config):
        """Choose the device; return the `tf.ConfigProto` with what it needs."""
        device.share_cores(config, self._flags.dynamic_rnn,
                           self.workers.on_this_machine)
        self._device = device.choose(config, self._flags.device)
        print('training on ' + self._device.where, file=sys.stderr)
        return config

    def begin(self, sess, m, mnist, build_export):
        """Begin the run, or restore the one that is resumed.

        Args:
            sess: `tf.Session`, with its variables initialized.
            m: `model.Model`.
            mnist: the data, as `data.read_data_sets` returns it.
            build_export: function that builds the graph of `ExportHook`.
        """
        flags, self._mnist = self._flags, mnist
        self._check_data(mnist)
        kept, names = flags.class_names or [], mnist.source.names
        self.names = list(map(str, kept)) if len(kept) == len(names) else names
        # Ranks other than 0 have no hooks, so they keep and show nothing.
        if self.workers.rank == 0:
            self._begin_hooks(sess, m, mnist, build_export)
        self.workers.broadcast_variables(sess)
        self._step = self._resumed_from = int(sess.run(tf.train.get_global_step()))
        for _ in range(self._step):  # skip the batches that the run has used
            mnist.train.next_batch(flags.batch_size)

    def _check_data(self, mnist):
        """Raise a `UserError` if the data are too few, or not those of the run."""
        flags, source = self._flags, mnist.source
        expected = self.workers.on_rank0(
            lambda: flags.data_sha256 if flags.resume else source.sha256)
        if not source.is_of_run(expected):
            raise UserError(
                '%s does not hold the files that %s: use --data_dir to name the folder '
                'that holds them' % (flags.data_dir, flags.resume + ' was trained on'
                                if flags.resume else 'rank 0 reads'))
        if flags.batch_size > mnist.train.num_examples:
            raise UserError('--batch_size %d is more than the %d images to train with: '
                            'lower it' % (flags.batch_size, mnist.train.num_examples))

    def _begin_hooks(self, sess, m, mnist, build_export):
        """Make the run directory or restore the run, and begin all hooks."""
        flags, directory = self._flags, self._directory
        if not flags.resume:
            directory.create()
        print('run directory: ' + directory.path, file=sys.stderr)
        checkpoints = CheckpointHook(directory, flags, sess)
        if flags.resume:
            checkpoints.restore()
        directory.write('config.json', config_of(
            flags, run_dir=directory.path, data_sha256=mnist.source.sha256,
            num_validation=mnist.source.num_validation, class_names=self.names))
        self._metrics = metrics.MetricsHook(directory, flags, sess, m, mnist,
                                            self._exits)
        self._hooks = [
            DivergenceHook(directory),
            checkpoints,
            self._metrics,
            StopHook(directory, checkpoints, self.workers.size, self._exits),
            saved_model.ExportHook(directory, build_export),
        ]
        for hook in self._hooks:
            hook.begin()

    def steps(self):
        """Return the numbers of the steps that are left, from 1 in a new run."""
        return range(self._step + 1, self._flags.steps + 1)

    def log(self, step, tag, value):
        """Log a metric of a step, a float, for TensorBoard and curves.png."""
        if self._metrics:
            self._metrics.write(step, {tag: value})

    def after_step(self, step, loss):
        """Call the hooks after a step; loss is that of its batch, a float."""
        self._step = step
        for hook in self._hooks:
            hook.after_step(step, loss)

    def end(self, test_accuracy, errors):
        """Call the hooks after the test, write result.json, and draw the pictures.

        The results come first. What comes after them cannot cost them.

        Args:
            test_accuracy: float.
            errors: `reading.errors.Errors` of the test.
        """
        flags = self._flags
        result = {
            'dataset': self._mnist.source.name,
            'steps': flags.steps,
            'resumed_from_step': self._resumed_from,
            'test_accuracy': float('%g' % test_accuracy),
            'class_accuracy': errors.class_accuracy(),
            'device': self._device.name,
            'versions': {'python': platform.python_version(),
                         'tensorflow': tf.__version__, 'numpy': np.__version__},
        }
        for hook in self._hooks:
            hook.end(result)
        if self._hooks:
            # After all that can fail, since it says that the run is done.
            self._directory.write('result.json', dict(
                result, seconds=time.perf_counter() - self._started))
            self._metrics.say('drawing')
            for name, draw in (
                    ('curves.png', lambda: metrics.draw_curves(self._directory.path)),
                    ('errors.png', errors.draw)):
                metrics.keep_picture(self._directory, name, draw)
            self._metrics.close()
            image = min(7, self._mnist.test.num_examples - 1)  # there is one
            print('kept in %s; try: %s' % (self._directory.path, _command(
                'predict.py', self._directory.path, '--test', str(image), '--rows',
                'rows.png')), file=sys.stderr)
        if self._device.substitute:
            print('note: this was trained on ' + self._device.where, file=sys.stderr)


class StopHook(Hook):
    """At Ctrl-C or another of `SIGNALS`, finish the step, save and stop.

    A second Ctrl-C kills the process. Programs send the other signals twice, such as
    timeout, so a second one is ignored. A signal that was ignored before, as by nohup,
    still is.
    """

    def __init__(self, directory, checkpoints, workers, exits):
        self._directory, self._checkpoints = directory, checkpoints
        self._workers = workers  # how many train together
        self._exits = exits  # `contextlib.ExitStack`, closed when the run ends
        self._arrived = []

    def begin(self):
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows no signal handlers there
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._exits.callback(signal.signal, number,
                                     signal.signal(number, self._note))

    def _note(self, number, frame):
        self._arrived.append(number)
        signal.signal(number, signal.SIG_DFL if number == signal.SIGINT
                      else signal.SIG_IGN)

    def after_step(self, step, loss):
        if self._arrived:
            self._checkpoints.save(step)
            self._stop(step)

    def end(self, result):
        if self._arrived:
            self._stop(result['steps'])

    def _stop(self, step):
        command = _command('train_lstm_mnist.py', '--resume', self._directory.path)
        if self._workers > 1:
            command = 'horovodrun -np %d %s --horovod' % (self._workers, command)
        raise Stopped(128 + self._arrived[0],
                      'stopped after step %d; to go on from there:\n%s'
                      % (step, command))


def _command(script, *args):
    """Return a command that can be pasted, str, of a script of this project."""
    here = os.path.join(os.getcwd(), '')
    programs = [path[len(here):] if path.startswith(here) else path
                for path in (sys.executable, os.path.join(PROJECT, script))]
    return ' '.join(map(shlex.quote, [*programs, *args]))
