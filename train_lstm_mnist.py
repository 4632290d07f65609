"""Trains a multi-layer LSTM that reads an MNIST digit row by row.

With no flags this is the tutorial: two layers of 256 units, Adam at 1e-3,
dropout 0.5, 2000 steps of 128 images, and the 10,000 test images at the end.
Its transcript goes to stdout, and all else to stderr.
"""
import argparse
import collections
import contextlib
import ctypes
import fcntl
import functools
import glob
import importlib.util
import io
import itertools
import json
import os
import platform
import random
import re
import shlex
import shutil
import signal
import socket
import sys
import threading
import time

import data

# TensorFlow, and model.py, which needs it, are imported once the flags are
# known to be good, so that a mistyped one is answered at once.

# What the tensorflow-gpu 1.15 wheel loads: the driver, CUDA 10.0 and cuDNN 7
# (tensorflow/stream_executor/platform/default/dso_loader.cc).
CUDA_LIBRARIES = (
    'libcuda.so.1', 'libcudart.so.10.0', 'libcublas.so.10.0',
    'libcufft.so.10.0', 'libcurand.so.10.0', 'libcusolver.so.10.0',
    'libcusparse.so.10.0', 'libcudnn.so.7')

# What a run that goes on may be given anew; its other flags made it what it is.
RESUME_FLAGS = ('steps', 'data_dir', 'mirror', 'device', 'log_every',
                'save_every', 'horovod')

# A guess has a loss of 0.23, ln(10) / 10; one at which the right digits have a
# probability of exp(-1000) comes of steps that are too long, and grows.
WORST_LOSS = 100.0

# How long the other workers wait for worker 0, which may have to fetch MNIST.
WAIT_SECONDS = 1800


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; exits with 2 on bad ones.

    With --resume they are those of the run's config.json, and what argv gives
    anew.

    Raises:
        data.UserError: there is no such run, or it can't go on like that.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)

    def flag(name, default, help, **kwargs):
        parser.add_argument(name, default=default, **kwargs,
                            help='%s (default: %s)' % (help, default))

    flag('--lr', 1e-3, "Adam's learning rate", type=_number(
        float, 'a number above 0', lambda lr: 0 < lr < float('inf')))
    flag('--batch_size', 128, 'images a step', type=_whole(1))
    flag('--keep_prob', 0.5, 'chance that dropout keeps a unit', type=_number(
        float, 'a number above 0 and at most 1', lambda p: 0 < p <= 1))
    flag('--hidden_size', 256, 'units of an LSTM layer', type=_whole(1, 8192))
    flag('--layer_num', 2, 'LSTM layers', type=_whole(1, 64))
    flag('--steps', 2000, 'training steps', type=_whole(1))
    flag('--ema_decay', 0.0, 'test and keep a moving average of the weights, of '
         'which a step leaves this share as it was; 0 is off', type=_number(
             float, 'a number from 0 to below 1', lambda d: 0 <= d < 1))
    parser.add_argument(
        '--dynamic_rnn', action='store_true',
        help='unroll with tf.nn.dynamic_rnn, not by hand (default: by hand)')
    flag('--dataset', 'mnist', 'mnist, or the 1,797 small digits that come '
         'with scikit-learn', choices=data.DATASETS)
    flag('--data_dir', 'MNIST_data', "the folder with MNIST's four files; what "
         'is missing is fetched', type=data.folder)
    parser.add_argument(
        '--mirror', type=data.mirror_url,
        help='where to fetch from (default: %s)' % ', then '.join(data.MIRRORS))
    flag('--device', 'auto', 'where to train; auto takes a GPU if there is one',
         choices=('auto', 'gpu', 'cpu'))
    parser.add_argument(
        '--seed', type=_whole(0, 2 ** 31 - 2),
        help='makes a run on the same CPU repeatable (default: another draw '
        'every time)')
    flag('--log_every', 50, 'steps between two notes of loss and accuracy',
         type=_whole(1))
    flag('--save_every', 200, 'steps between two checkpoints, of which the last '
         'three are kept', type=_whole(1))
    parser.add_argument(
        '--run_dir', type=data.run_folder,
        help='a new folder for the run (default: runs/<date>-<time>)')
    parser.add_argument(
        '--horovod', action='store_true',
        help='share every batch with the other workers that horovodrun began '
        '(default: this is the only one)')
    parser.add_argument(
        '--resume', metavar='RUN_DIR', type=data.run_folder,
        help='goes on with the run in this folder, with its flags; of those, '
        '%s and --%s may be given anew' % (
            ', '.join('--' + name for name in RESUME_FLAGS[:-1]),
            RESUME_FLAGS[-1]))
    flags = parser.parse_args(argv)
    if flags.resume:
        if flags.run_dir:
            parser.error('argument --run_dir: not with --resume, which names '
                         'the folder itself')
        flags = _resumed_flags(parser, flags.resume,
                               sys.argv[1:] if argv is None else argv)
    if 'HOROVOD_RANK' in os.environ and not flags.horovod:
        parser.error('horovodrun began this: add --horovod, or each of its '
                     'workers trains a network of its own')
    num_train = data.num_train(flags.dataset, flags.data_dir)
    if flags.batch_size > num_train:
        parser.error('argument --batch_size: must be from 1 to %d, the size of '
                     'the training set, not %d' % (num_train, flags.batch_size))
    return flags


def _resumed_flags(parser, run_dir, argv):
    path = os.path.join(run_dir, 'config.json')

    def damaged(why):
        raise data.UserError('%s is damaged (%s): put back a whole one, or begin '
                             'a new run without --resume' % (path, why))

    try:
        with open(path) as f:
            config = json.load(f)
    except OSError as error:
        raise data.UserError('--resume %s: cannot read %s (%s): name the '
                             'directory of a run' % (run_dir, path,
                                                     error.strerror))
    except ValueError as error:
        damaged(error)
    known = (set(vars(parser.parse_args([]))) - {'resume', 'horovod'}
             | {'data_sha256'})
    if not isinstance(config, dict) or set(config) != known:
        damaged('it does not hold what this script writes there')
    begun_with = []
    defaults = vars(parser.parse_args([]))
    for name, value in config.items():
        if name in ('run_dir', 'data_sha256'):
            continue
        if value is None or value is False:
            if value is not defaults[name]:
                damaged('--%s is %s' % (name, json.dumps(value)))
        else:
            begun_with.append('--%s%s' % (
                name, '' if value is True else '=%s' % value))

    wrong_usage, parser.error = parser.error, damaged
    begun = parser.parse_args(begun_with)
    parser.error = wrong_usage
    flags = parser.parse_args(begun_with + argv)
    try:
        with open(os.path.join(run_dir, 'result.json')) as f:
            if (json.load(f)['steps'] == flags.steps
                    and os.path.isdir(os.path.join(run_dir, 'saved_model'))):
                raise data.UserError('the run in %s has done its %d steps: name '
                                     'more with --steps' % (run_dir, flags.steps))
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or no word of ours: not done
    for name, value in vars(begun).items():
        if (name not in RESUME_FLAGS + ('run_dir', 'resume')
                and getattr(flags, name) != value):
            raise data.UserError(
                'the run in %s was begun with --%s %s: leave out --%s, or begin '
                'a new run without --resume' % (run_dir, name, value, name))
    flags.data_sha256 = config['data_sha256']
    return flags


def _number(kind, what, is_good):
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_good(value):
            raise argparse.ArgumentTypeError('must be %s, not %r' % (what, text))
        return value
    return parse


def _whole(low, high=None):
    if high is None:
        return _number(int, 'a whole number, %d or more' % low,
                       lambda n: n >= low)
    return _number(int, 'a whole number from %d to %d' % (low, high),
                   lambda n: low <= n <= high)


class Workers(object):
    """The processes that train together, of which this is one.

    Attributes:
        size: int, how many they are; 1 without Horovod.
        rank: int from 0 to size - 1, which one this is. What a user sees and
            keeps is made by worker 0.
        local_size, local_rank: int, the same among those on this machine.
    """

    def __init__(self, horovod=False):
        """Joins those that horovodrun began, if horovod says so.

        Raises:
            data.UserError: Horovod is not installed.
        """
        self.size, self.rank, self.local_size, self.local_rank = 1, 0, 1, 0
        if not horovod:
            return
        self.tf = data.import_tensorflow()
        try:
            import horovod.tensorflow as hvd
        except ImportError as error:
            raise data.UserError(
                '--horovod: Horovod is missing (%s): make horovod, or '
                'HOROVOD_WITH_TENSORFLOW=1 pip install --no-build-isolation '
                'horovod==0.28.1' % str(error).splitlines()[0])
        hvd.init()
        self.hvd = hvd
        self.size, self.rank = hvd.size(), hvd.rank()
        self.local_size, self.local_rank = hvd.local_size(), hvd.local_rank()
        # A GPU each. As gpu_options.visible_device_list has it, TensorFlow
        # aborts where there is none.
        gpus = os.environ.get('CUDA_VISIBLE_DEVICES')
        gpus = [str(self.local_rank)] * self.local_size if gpus is None else (
            gpus.split(',') + [''] * self.local_size)
        os.environ['CUDA_VISIBLE_DEVICES'] = gpus[self.local_rank]

    def first(self, what, then=None):
        """Has worker 0 do something while the others wait.

        Args:
            what: a function without arguments.
            then: the function that the others call once it is done.

        Returns:
            What it returned; on the others, without `then`, the same.

        Raises:
            On worker 0 what it raised, and SystemExit(1) on the others.
        """
        if self.size == 1:
            return what()
        result, told = None, None
        try:
            if self.rank == 0:
                result = what()
                told = [None if then else result]
        finally:
            told = self._tell(told)
        if self.rank == 0:
            return result
        if told is None:
            sys.exit(1)
        return then() if then else told[0]

    def _tell(self, told):
        """Returns, on all workers, what worker 0 gives."""
        def give_up():
            sys.__stderr__.write(
                'error: worker 0 has kept worker %d waiting for %d seconds: see '
                'what it does, and run again\n' % (self.rank, WAIT_SECONDS))
            os._exit(1)

        # Horovod's own watch over workers that stall takes no notice here.
        watch = threading.Timer(WAIT_SECONDS, give_up)
        watch.daemon = True
        config = self.tf.ConfigProto(device_count={'GPU': 0})
        try:
            if self.rank > 0:
                watch.start()
            with self.tf.Graph().as_default(), self.tf.Session(
                    config=config) as sess:
                return self.hvd.broadcast_object(told, session=sess, name='told')
        except self.tf.errors.OpError as error:
            raise data.UserError(
                'a worker was lost (%s): see what it said, and run again'
                % str(error).splitlines()[0])
        finally:
            watch.cancel()

    def distribute(self, optimizer):
        """Returns one whose gradients are the mean of all workers'."""
        return (optimizer if self.size == 1
                else self.hvd.DistributedOptimizer(optimizer))

    def mean(self, tensor):
        """Returns the mean of all workers' tensors."""
        return tensor if self.size == 1 else self.hvd.allreduce(tensor)

    def agree(self, sess):
        """Gives all workers the variables of worker 0: weights, slots, step."""
        if self.size > 1:
            sess.run(self.hvd.broadcast_global_variables(0))


def train(tf, flags, workers=Workers()):
    """Runs the tutorial: session, data, graph, loop, test; keeps the run.

    Args:
        tf: the module TensorFlow 1.15.
        flags: as `parse_flags` gives them.
        workers: `Workers`.

    Returns:
        The exit status: 0, or 130 or 143 after Ctrl-C or SIGTERM.

    Raises:
        data.UserError: there is something that the user can mend.
    """
    for package, version in (('tqdm', '4.67.1'), ('matplotlib', '3.5.3')):
        if importlib.util.find_spec(package) is None:
            raise data.UserError('%s is missing: pip install %s==%s'
                                 % (package, package, version))
    import numpy as np
    import tqdm

    import model

    started = time.perf_counter()
    config = session_config(tf, flags.dynamic_rnn, workers)
    device = choose_device(tf, config, flags.device)
    if (workers.first(lambda: device) == 'CPU') != (device == 'CPU'):
        raise data.UserError(
            'worker %d, on %s, would train on another kind of device than worker '
            '0: begin one worker a GPU, or name --device cpu'
            % (workers.rank, socket.gethostname()))
    sess = tf.Session(config=config)

    def begin():
        if flags.batch_size % workers.size:
            raise data.UserError(
                '--batch_size %d cannot be shared by %d workers: name a multiple '
                'of %d' % (flags.batch_size, workers.size, workers.size))
        if flags.resume:
            claim(flags.resume)
        # Drawn here, so that config.json tells it and a run that is resumed
        # finds its place in the data.
        return (random.SystemRandom().randrange(2 ** 31 - 1)
                if flags.seed is None else flags.seed)

    flags.seed = workers.first(begin)
    read = functools.partial(data.read_data_sets, flags.data_dir, flags.dataset,
                             seed=flags.seed)
    mnist = workers.first(
        lambda: read(mirrors=[flags.mirror] if flags.mirror else data.MIRRORS),
        then=lambda: read(mirrors=()))
    print(mnist.train.images.shape, flush=True)
    dataset = flags.dataset
    if dataset == 'mnist' and not data.is_mnist(flags.data_dir):
        dataset = os.path.abspath(flags.data_dir)
    data_sha256 = data.fingerprint(flags.dataset, flags.data_dir)
    if workers.first(lambda: data_sha256) != data_sha256:
        raise data.UserError(
            '%s on %s does not hold the files that worker 0 reads: put the same '
            'ones on every machine' % (flags.data_dir, socket.gethostname()))

    def find_run_dir():
        if not flags.resume:
            return make_run_dir(flags.run_dir), 0
        if data_sha256 == flags.data_sha256:
            return flags.resume, max(checkpoints(flags.resume), default=0)
        raise data.UserError(
            '%s does not hold the files that %s was trained on: name the '
            'folder that does with --data_dir' % (flags.data_dir, flags.resume))

    run_dir, step = workers.first(find_run_dir)
    print('run directory: ' + run_dir, file=sys.stderr)
    # Moved on with the steps, lest dropout draw again what it began with, and
    # with the workers, lest all drop the same.
    tf.set_random_seed((flags.seed + step + 10 ** 6 * workers.rank) % 2 ** 31)
    m = model.build(flags.lr, flags.hidden_size, flags.layer_num,
                    flags.dynamic_rnn, flags.ema_decay, workers.distribute)
    stop = tf.placeholder(tf.float32, [], name='stop')
    loss_and_stop = workers.mean(tf.stack([m.cross_entropy, stop]))
    saver = tf.train.Saver(max_to_keep=None)
    sess.run(tf.global_variables_initializer())
    step, saved = 0, None
    if flags.resume:
        step = saved = workers.first(
            lambda: restore(tf, sess, saver, run_dir, flags.steps))
        for _ in range(step):  # to the place in the data
            mnist.train.next_batch(flags.batch_size)
    workers.agree(sess)

    if workers.rank == 0:
        kept_flags = dict(vars(flags), run_dir=run_dir, data_sha256=data_sha256)
        del kept_flags['resume'], kept_flags['horovod']
        data.write_whole(os.path.join(run_dir, 'config.json'),
                         to_json(kept_flags))
        write_event = event_writer(tf, run_dir)
        if not flags.resume:
            write_event(graph_def=sess.graph.as_graph_def(
                add_shapes=True).SerializeToString())
        # TensorBoard forgets what a session that was killed noted of steps to
        # come.
        write_event(step=step + 1, session_log=tf.SessionLog(
            status=tf.SessionLog.START))

    def evaluate(images, labels, weights={}):
        return sess.run((m.accuracy, m.cross_entropy), feed_dict={
            m.images: images, m.y: labels, m.keep_prob: 1.0,
            m.batch_size: len(images), **weights})

    def averages():
        return dict(zip(m.averages, sess.run(list(m.averages.values()))))

    def note(scalars):
        write_event(step=step, summary=tf.Summary(value=[
            tf.Summary.Value(tag=tag, simple_value=value)
            for tag, value in scalars.items()]))

    def note_validation():
        images, labels = mnist.validation.images, mnist.validation.labels
        weights = averages()
        # Ten parts, which stay in the processor's cache; the digits are one.
        accuracy, loss = np.mean(
            [evaluate(images[i:i + 500], labels[i:i + 500], weights)
             for i in range(0, len(images), 500)], axis=0)
        note({'accuracy/validation': accuracy, 'loss/validation': loss})
        return accuracy

    def kept():
        return ('no checkpoint yet' if saved is None
                else 'the checkpoint of step %d' % saved)

    step_seconds, losses = [], []
    each = flags.batch_size // workers.size
    share = slice(workers.rank * each, (workers.rank + 1) * each)
    any_stopped = 0.0
    with stop_signals() as stopped:
        def stopping():
            # Several workers stop after the same step, which all have told of.
            return bool(stopped) if workers.size == 1 else any_stopped > 0

        with memory_kept(), tqdm.tqdm(
                desc='training', total=flags.steps, initial=step, unit='step',
                dynamic_ncols=True, disable=None) as bar:
            while step < flags.steps and not stopping():
                batch = mnist.train.next_batch(flags.batch_size)
                step_started = time.perf_counter()
                try:
                    (loss, any_stopped), weights_sum, _ = sess.run(
                        [loss_and_stop, m.weights_sum, m.train_op],
                        feed_dict={m.images: batch[0][share],
                                   m.y: batch[1][share],
                                   m.keep_prob: flags.keep_prob,
                                   m.batch_size: each,
                                   stop: bool(stopped)})
                except (tf.errors.UnknownError, tf.errors.AbortedError):
                    raise data.UserError(
                        'a worker was lost at step %d: see what it said, and %s'
                        % (step + 1, 'begin again' if saved is None else
                           'go on with --resume %s, which keeps %s'
                           % (run_dir, kept())))
                step_seconds.append(time.perf_counter() - step_started)
                step += 1
                if not (loss <= WORST_LOSS and np.isfinite(weights_sum)):
                    if workers.rank > 0:
                        return 1
                    raise data.UserError(
                        'the training came apart at step %d, with a loss of %g '
                        'and a sum of all weights of %g: begin a new run with '
                        'a lower --lr or a higher --keep_prob; %s keeps %s'
                        % (step, loss, weights_sum, run_dir, kept()))
                bar.update()
                if workers.rank > 0:
                    continue
                losses.append(loss)
                # Before the transcript, which may have lost its reader.
                if step % flags.save_every == 0 and step < flags.steps:
                    save(tf, sess, saver, run_dir, step)
                    saved = step
                transcribe = step % 200 == 0
                log = step % flags.log_every == 0 or step == flags.steps
                if transcribe or log:
                    accuracy, _ = evaluate(*batch)
                if transcribe:
                    bar.write('Iter%d, step %d, training accuracy %g' % (
                        mnist.train.epochs_completed, step, accuracy))
                    sys.stdout.flush()
                if log:
                    rate = 1 / np.median(step_seconds[-len(losses):])
                    loss, losses = np.mean(losses), []
                    note({'accuracy/training': accuracy,
                          'loss/training': loss, 'steps_per_second': rate})
                    bar.set_postfix(loss='%.4f' % loss,
                                    accuracy='%.3f' % accuracy)
                    if bar.disable:
                        print('step %d of %d, %.1f steps/s, loss %.4f, '
                              'accuracy %.3f' % (step, flags.steps, rate, loss,
                                                 accuracy), file=sys.stderr)
                validate = step % (2 * flags.save_every) == 0
                if validate and step < flags.steps and not stopping():
                    note_validation()
        if workers.rank > 0:
            return 128 + stopped[0] if stopped else int(stopping())
        if saved != step:
            save(tf, sess, saver, run_dir, step)
        if not stopping():
            test_accuracy, _ = evaluate(mnist.test.images, mnist.test.labels,
                                        averages())
            validation_accuracy = note_validation()
        if stopping():  # during the test, perhaps
            command = [sys.executable, sys.argv[0], '--resume', run_dir]
            if workers.size > 1:
                command = ['horovodrun', '-np', str(workers.size), *command,
                           '--horovod']
            print('stopped after step %d; to go on from there:\n%s' % (
                step, ' '.join(map(shlex.quote, command))), file=sys.stderr)
            return 128 + stopped[0] if stopped else 1
        print('test accuracy %g' % test_accuracy, flush=True)
        note({'accuracy/test': test_accuracy})
        export(tf, config, flags, run_dir)
        draw_curves(read_points(tf, run_dir), os.path.join(run_dir, 'curves.png'))
    # Last, since it says that the run is done.
    data.write_whole(os.path.join(run_dir, 'result.json'), to_json({
        'dataset': dataset,
        'steps': flags.steps,
        'resumed_from_step': flags.steps - len(step_seconds),
        'test_accuracy': float('%g' % test_accuracy),
        'validation_accuracy': float('%g' % validation_accuracy),
        'median_step_seconds': (float(np.median(step_seconds))
                                if step_seconds else None),
        'seconds': time.perf_counter() - started,
        'device': device,
        'versions': {'python': platform.python_version(),
                     'tensorflow': tf.__version__, 'numpy': np.__version__},
    }), go_on(run_dir))
    sess.close()
    return 0


def claim(run_dir):
    """Takes a folder for this process, until it ends, however it ends.

    Raises:
        data.UserError: a running training has it.
    """
    folder = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise data.UserError('%s is in use by a training that is running: wait '
                             'for it, or stop it' % run_dir)


@contextlib.contextmanager
def stop_signals():
    """Gives a list that Ctrl-C (SIGINT) or SIGTERM adds its number to.

    A second one of either ends the process at once, with 128 + its number.
    """
    stopped = []
    # Python calls its handlers between two steps only, and a step can be long;
    # what wakes the pipe up comes through at any time.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch():
        for number, in iter(lambda: os.read(reading, 1), b''):
            if stopped:
                os._exit(128 + number)
            stopped.append(number)
            print('\nstopping after this step; a second time stops at once',
                  file=sys.stderr)
        os.close(reading)

    handlers = {number: signal.signal(number, lambda number, frame: None)
                for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writing)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield stopped
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(writing)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def event_writer(tf, run_dir):
    """Makes a file for what a session notes for TensorBoard.

    `tf.summary.FileWriter` writes the same, and says nothing when it can't.

    Args:
        tf: the module TensorFlow.
        run_dir: str; the file is its events.out.tfevents.<time>.<host>.<pid>.

    Returns:
        A function that writes one `tf.Event` with the fields it is given, and
        raises data.UserError if the system says no.
    """
    path = os.path.join(run_dir, 'events.out.tfevents.%d.%s.%d' % (
        time.time(), socket.gethostname(), os.getpid()))
    with written(tf, run_dir, path):
        writer = tf.io.TFRecordWriter(path)

    def write(**fields):
        with written(tf, run_dir, path):
            writer.write(tf.Event(wall_time=time.time(),
                                  **fields).SerializeToString())
            writer.flush()

    write(file_version='brain.Event:2')
    return write


@contextlib.contextmanager
def written(tf, run_dir, what):
    """Makes of a write in a run's folder that fails a data.UserError.

    Args:
        tf: the module TensorFlow.
        run_dir: str.
        what: str, the file that is written.
    """
    try:
        yield
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise data.UserError('cannot write %s (%s): %s' % (
            what, str(error).splitlines()[0], go_on(run_dir)))


def go_on(run_dir):
    """Returns what to do when something in a run's folder was not written."""
    return ('mend that and go on with --resume ' + run_dir
            if checkpoints(run_dir) else 'mend that and begin a new run')


def checkpoints(run_dir):
    """Returns the steps of the checkpoints in a folder, the latest first."""
    found = [re.fullmatch(r'model\.ckpt-(\d+)\.index', name)
             for name in os.listdir(run_dir)]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def save(tf, sess, saver, run_dir, step):
    """Writes a checkpoint, whole or not at all, and keeps the last three.

    Args:
        tf: the module TensorFlow.
        sess: `tf.Session`, whose variables are saved.
        saver: `tf.train.Saver` that leaves the old checkpoints alone.
        run_dir: str; the files are its model.ckpt-<step>.*.
        step: int.

    Raises:
        data.UserError: the system says no; earlier checkpoints are kept.
    """
    with aside(tf, run_dir, 'model.ckpt-%d' % step) as saving:
        saver.save(sess, os.path.join(saving, 'model.ckpt'), step,
                   write_meta_graph=False, write_state=False)
        # .data before .index: a checkpoint that has the latter is whole.
        for part in sorted(os.listdir(saving)):
            sync(os.path.join(saving, part))
            os.replace(os.path.join(saving, part), os.path.join(run_dir, part))
        sync(run_dir)
        steps = checkpoints(run_dir)
        # What tf.train.latest_checkpoint reads.
        data.write_whole(os.path.join(run_dir, 'checkpoint'), ''.join(
            '%s: "model.ckpt-%d"\n' % pair for pair in [
                ('model_checkpoint_path', steps[0])] + [
                ('all_model_checkpoint_paths', kept)
                for kept in steps[2::-1]]).encode(), go_on(run_dir))
        for old in steps[3:]:
            for path in sorted(glob.glob(os.path.join(
                    glob.escape(run_dir), 'model.ckpt-%d.*' % old)))[::-1]:
                os.remove(path)


@contextlib.contextmanager
def aside(tf, run_dir, what):
    """Gives a folder in run_dir for files that are not whole yet; removes it.

    Args:
        tf: the module TensorFlow.
        run_dir: str.
        what: str, the name of what is written.

    Raises:
        data.UserError: the system says no.
    """
    folder = os.path.join(run_dir, 'saving')
    with written(tf, run_dir, os.path.join(run_dir, what)):
        if os.path.exists(folder):  # left by a process that died
            shutil.rmtree(folder)
        os.mkdir(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def sync(path):
    """Has the system write a file or a folder out, against a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def restore(tf, sess, saver, run_dir, steps):
    """Restores the latest checkpoint that is whole.

    Args:
        tf: the module TensorFlow.
        sess: `tf.Session`, whose variables are restored.
        saver: `tf.train.Saver`.
        run_dir: str.
        steps: int, how far the run is to go.

    Returns:
        int, the step that it was saved after.

    Raises:
        data.UserError: there is none, it is another model's, or it is past
            steps.
    """
    model_shapes = {v.op.name: v.shape.as_list() for v in tf.global_variables()}
    damaged = []
    for step in checkpoints(run_dir):
        path = os.path.join(run_dir, 'model.ckpt-%d' % step)
        try:
            shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()
            if shapes != model_shapes:
                raise data.UserError(
                    '%s is of another model than config.json beside it says: '
                    'put back the files of one run' % path)
            saver.restore(sess, path)
        except (tf.errors.OpError, ValueError) as error:
            why = str(error).split('Original error:\n\n')[-1].splitlines()[0]
            damaged.append('%s is damaged (%s)' % (path, why))
            continue
        for why in damaged:
            print('warning: ' + why, file=sys.stderr)
        if step > steps:
            raise data.UserError('the run in %s has %d steps behind it: name '
                                 'more with --steps' % (run_dir, step))
        print('going on from step %d' % step, file=sys.stderr)
        return step
    raise data.UserError(
        'nothing to go on from, %s: begin a new run without --resume'
        % ('; '.join(damaged) or 'as %s has no checkpoint yet' % run_dir))


def export(tf, config, flags, run_dir):
    """Writes saved_model/, the trained network for use, from the checkpoint.

    Its signature serving_default takes images, float32 [n, 784] in [0, 1], and
    gives probabilities, float32 [n, 10], and classes, int64 [n]; the signature
    rows gives probabilities [n, 28, 10], those after each row. With
    flags.ema_decay the weights are the averages.

    Args:
        tf: the module TensorFlow.
        config: `tf.ConfigProto`.
        flags: as `parse_flags` gives them.
        run_dir: str.

    Raises:
        data.UserError: the system says no.
    """
    import model
    with aside(tf, run_dir, 'saved_model') as saving, \
            tf.Graph().as_default(), tf.Session(config=config) as sess:
        images, rows = model.build_export(flags.hidden_size, flags.layer_num,
                                          flags.dynamic_rnn)
        names = None
        if flags.ema_decay:
            names = tf.train.ExponentialMovingAverage(
                flags.ema_decay).variables_to_restore()
        tf.train.Saver(names).restore(
            sess, os.path.join(run_dir, 'model.ckpt-%d' % flags.steps))
        whole = os.path.join(saving, 'saved_model')
        builder = tf.saved_model.Builder(whole)
        signature = tf.saved_model.predict_signature_def
        builder.add_meta_graph_and_variables(
            sess, [tf.saved_model.SERVING], {
                'serving_default': signature({'images': images}, {
                    'probabilities': rows[:, -1],
                    'classes': tf.argmax(rows[:, -1], 1)}),
                'rows': signature({'images': images}, {'probabilities': rows})})
        builder.save()
        # TensorFlow takes a graph in which a bit has changed for another graph.
        data.write_whole(os.path.join(whole, data.SHA256SUMS),
                         data.sha256sums(whole).encode(), go_on(run_dir))
        for folder, _, files in os.walk(whole):
            for name in files:
                sync(os.path.join(folder, name))
        place = os.path.join(run_dir, 'saved_model')
        if os.path.exists(place):  # that of fewer steps
            os.rename(place, os.path.join(saving, 'old'))
        os.rename(whole, place)


def read_points(tf, run_dir):
    """Reads back what all sessions of a run noted for TensorBoard.

    Returns:
        {tag: {step: value}}, steps int and values float.
    """
    points = collections.defaultdict(dict)
    for path in sorted(glob.glob(os.path.join(glob.escape(run_dir),
                                              'events.out.tfevents.*'))):
        try:
            for event in tf.train.summary_iterator(path):
                if event.session_log.status == tf.SessionLog.START:
                    for tag in points:
                        points[tag] = {step: value for step, value
                                       in points[tag].items()
                                       if step < event.step}
                for value in event.summary.value:
                    points[value.tag][event.step] = value.simple_value
        except tf.errors.DataLossError:  # the end of one that was killed
            continue
    return points


def draw_curves(points, path):
    """Draws loss and accuracy over the steps.

    Args:
        points: as `read_points` gives them.
        path: str, the PNG file to write.

    Raises:
        data.UserError: the system says no.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator
    figure = Figure(figsize=(8, 6), dpi=100, tight_layout=True)
    FigureCanvasAgg(figure)
    plots = dict(zip(('loss', 'accuracy'), figure.subplots(2, sharex=True)))
    for name, axes in plots.items():
        for part, style in (('training', '.-'), ('validation', 'o-')):
            axes.plot(*zip(*sorted(points[name + '/' + part].items())), style,
                      label=part)
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    plots['loss'].set_yscale('log')
    plots['loss'].legend(['training, with dropout', 'validation, without'])
    plots['loss'].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plots['loss'].yaxis.set_major_formatter('{x:g}')
    plots['loss'].yaxis.set_minor_locator(NullLocator())
    step, test = max(points['accuracy/test'].items())
    plots['accuracy'].plot(step, test, 'k*', markersize=12,
                           label='test: %g' % test)
    # The first steps, far below, would leave the others no room.
    plots['accuracy'].set_ylim(
        bottom=min(points['accuracy/validation'].values()) - 0.02)
    plots['accuracy'].set_xlabel('step')
    plots['accuracy'].legend(loc='lower right')
    png = io.BytesIO()
    figure.savefig(png, format='png')
    data.write_whole(path, png.getvalue(), go_on(os.path.dirname(path)))


def session_config(tf, dynamic_rnn=False, workers=Workers()):
    """Returns the `tf.ConfigProto` of the training.

    Args:
        tf: the module TensorFlow.
        dynamic_rnn: bool, as for `model.build`.
        workers: `Workers`; each takes its share of the cores.
    """
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    if not dynamic_rnn:
        # There are two things to do at most times: a row in one layer, and
        # another in the next or a weight's gradient. Half of the cores for
        # each is faster than all for one after the other.
        config.intra_op_parallelism_threads = max(
            1, len(os.sched_getaffinity(0)) // 2 // workers.local_size)
    return config


@contextlib.contextmanager
def memory_kept():
    """Has the C library keep the memory of a training step for the next.

    It would give most of it back to the system, which then has to clear some
    20 MB for every step. What is kept goes back in the end. The parameters'
    numbers, defaults and limits are glibc's (mallopt(3) and its malloc.c);
    another C library is left as it is.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt'):
        yield
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    libc.mallopt(M_MMAP_THRESHOLD, 2 ** 25)  # its limit
    libc.mallopt(M_TRIM_THRESHOLD, 2 ** 30)
    libc.mallopt(M_TOP_PAD, 2 ** 26)
    try:
        yield
    finally:
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD):
            libc.mallopt(parameter, 2 ** 17)
        libc.malloc_trim(0)


def choose_device(tf, config, device):
    """Says on stderr where the graph will run.

    Args:
        tf: the module TensorFlow.
        config: `tf.ConfigProto` of the session to come; for 'cpu' it is
            changed to hide the GPUs.
        device: 'auto', 'gpu' or 'cpu'.

    Returns:
        The GPU's name, or 'CPU'.

    Raises:
        data.UserError: a GPU is asked for and there is none.
    """
    from tensorflow.python.client import device_lib
    if device == 'cpu':
        config.device_count['GPU'] = 0
    gpus = [local.physical_device_desc
            for local in device_lib.list_local_devices(config)
            if local.device_type == 'GPU']
    if gpus:
        name = re.search('name: (.*?),', gpus[0]).group(1)
        print('training on the GPU: ' + name, file=sys.stderr)
        return name
    if device == 'cpu':
        why = 'as --device cpu asks'
    else:
        why = why_no_gpu(tf)
        if device == 'gpu':
            raise data.UserError('--device gpu: there is no GPU to train on, '
                                 '%s: see "GPU" in README.md, or use --device '
                                 'auto' % why)
    print('training on the CPU, ' + why, file=sys.stderr)
    return 'CPU'


def why_no_gpu(tf):
    """Returns, as part of a sentence, why TensorFlow found no GPU."""
    if not tf.test.is_built_with_cuda():
        return 'since this TensorFlow is built without CUDA'
    missing = []
    for library in CUDA_LIBRARIES:
        try:
            ctypes.CDLL(library)
        except OSError:
            missing.append(library)
    if missing:
        return 'since it could not load ' + ', '.join(missing)
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
        return ('since CUDA_VISIBLE_DEVICES=%s shows it no GPU'
                % os.environ['CUDA_VISIBLE_DEVICES'])
    return 'since the NVIDIA driver shows it no GPU'


def make_run_dir(path):
    """Makes the folder for a run, claims it and returns its path.

    Args:
        path: str, which must not exist or be empty; None for a new
            runs/<date>-<time>.

    Raises:
        data.UserError: it is in use, or can't be made.
    """
    try:
        if path is not None:
            os.makedirs(path, exist_ok=True)
            claim(path)
            if os.listdir(path):
                raise data.UserError('the folder %s is not empty: name a new '
                                     'one with --run_dir' % path)
            return path
        now = time.strftime('runs/%Y%m%d-%H%M%S')
        for again in itertools.count(1):
            try:
                path = now if again == 1 else '%s-%d' % (now, again)
                os.makedirs(path)
                claim(path)
                return path
            except FileExistsError:  # another run began this second
                continue
    except OSError as error:
        raise data.UserError('cannot make the folder %s (%s): name another '
                             'with --run_dir' % (path, error.strerror))


def to_json(value):
    return (json.dumps(value, indent=2) + '\n').encode()


@data.reports_errors
def main(argv=None):
    """Trains as the flags in argv say; returns the exit status."""
    # Python 3.7 would hold back what goes to a log file.
    sys.stderr.reconfigure(line_buffering=True)
    workers = Workers('--horovod' in (sys.argv if argv is None else argv))
    flags = workers.first(lambda: parse_flags(argv))
    tf = data.import_tensorflow()
    try:
        with contextlib.ExitStack() as quiet:
            if workers.rank > 0:
                nowhere = quiet.enter_context(open(os.devnull, 'w'))
                quiet.enter_context(contextlib.redirect_stdout(nowhere))
                quiet.enter_context(contextlib.redirect_stderr(nowhere))
            return train(tf, flags, workers)
    except data.NoMirrorError as error:
        if flags.resume:
            raise
        raise data.UserError('%s with --data_dir, or train on the bundled '
                             'digits with --dataset digits' % error)
    except tf.errors.ResourceExhaustedError as error:
        raise data.UserError('out of memory (%s): lower --batch_size, '
                             '--hidden_size or --layer_num'
                             % str(error).splitlines()[0])


if __name__ == '__main__':
    sys.exit(main())
