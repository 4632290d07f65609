"""Trains a multi-layer LSTM that reads an MNIST digit row by row.

With no flags this is the tutorial: two layers of 256 units, Adam at 1e-3,
dropout 0.5, 2000 steps of 128 images, and the 10,000 test images at the end.
Its transcript goes to stdout, and all else to stderr.
"""
import argparse
import ctypes
import itertools
import json
import os
import platform
import re
import sys
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


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; exits with 2 on bad ones."""
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
    parser.add_argument(
        '--run_dir', type=data.folder,
        help='a new folder for the run (default: runs/<date>-<time>)')
    flags = parser.parse_args(argv)
    num_train = data.num_train(flags.dataset, flags.data_dir)
    if flags.batch_size > num_train:
        parser.error('argument --batch_size: must be from 1 to %d, the size of '
                     'the training set, not %d' % (num_train, flags.batch_size))
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


def train(tf, flags):
    """Runs the tutorial: session, data, graph, loop, test; keeps the run.

    Args:
        tf: the module TensorFlow 1.15.
        flags: as `parse_flags` gives them.

    Raises:
        data.UserError: there is something that the user can mend.
    """
    import numpy as np

    import model

    started = time.perf_counter()
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    device = choose_device(tf, config, flags.device)
    sess = tf.Session(config=config)

    mnist = data.read_data_sets(
        flags.data_dir, flags.dataset,
        [flags.mirror] if flags.mirror else data.MIRRORS, flags.seed)
    print(mnist.train.images.shape, flush=True)
    dataset = flags.dataset
    if dataset == 'mnist' and not data.is_mnist(flags.data_dir):
        dataset = os.path.abspath(flags.data_dir)

    run_dir = make_run_dir(flags.run_dir)
    write_json(os.path.join(run_dir, 'config.json'),
               dict(vars(flags), run_dir=run_dir))
    print('run directory: ' + run_dir, file=sys.stderr)

    tf.set_random_seed(flags.seed)
    m = model.build(flags.lr, flags.hidden_size, flags.layer_num,
                    flags.dynamic_rnn)
    saver = tf.train.Saver()

    def accuracy(images, labels):
        return sess.run(m.accuracy, feed_dict={
            m.images: images, m.y: labels, m.keep_prob: 1.0,
            m.batch_size: len(images)})

    sess.run(tf.global_variables_initializer())
    step_seconds = []
    for i in range(flags.steps):
        batch = mnist.train.next_batch(flags.batch_size)
        step_started = time.perf_counter()
        sess.run(m.train_op, feed_dict={
            m.images: batch[0], m.y: batch[1], m.keep_prob: flags.keep_prob,
            m.batch_size: flags.batch_size})
        step_seconds.append(time.perf_counter() - step_started)
        if (i + 1) % 200 == 0:
            print('Iter%d, step %d, training accuracy %g' % (
                mnist.train.epochs_completed, i + 1, accuracy(*batch)),
                flush=True)

    try:
        saver.save(sess, os.path.join(run_dir, 'model.ckpt'), flags.steps)
    except (tf.errors.OpError, ValueError) as error:
        raise data.UserError('cannot write the checkpoint in %s (%s): mend '
                             'that, or name another --run_dir'
                             % (run_dir, str(error).splitlines()[0]))
    test_accuracy = accuracy(mnist.test.images, mnist.test.labels)
    print('test accuracy %g' % test_accuracy, flush=True)
    validation_accuracy = accuracy(mnist.validation.images,
                                   mnist.validation.labels)
    write_json(os.path.join(run_dir, 'result.json'), {
        'dataset': dataset,
        'steps': flags.steps,
        'test_accuracy': float('%g' % test_accuracy),
        'validation_accuracy': float('%g' % validation_accuracy),
        'median_step_seconds': float(np.median(step_seconds)),
        'seconds': time.perf_counter() - started,
        'device': device,
        'versions': {'python': platform.python_version(),
                     'tensorflow': tf.__version__, 'numpy': np.__version__},
    })
    sess.close()


def import_tensorflow():
    """Returns the module tensorflow, with all but its errors silenced.

    Raises:
        data.UserError: it can't be imported or is not 1.15.
    """
    # 2 leaves the C++ side's errors and silences its warnings.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except Exception as error:  # a protobuf too new raises a TypeError
        found = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
    else:
        found = 'this is ' + tf.__version__
    if not found.startswith('this is 1.15.'):
        raise data.UserError(
            'TensorFlow 1.15 is needed (%s): in a Python 3.7, pip install -r '
            'requirements.txt, or use make train' % found)
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    return tf


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
    """Makes the folder for a run and returns its path.

    Args:
        path: str, which must not exist or be empty; None for a new
            runs/<date>-<time>.

    Raises:
        data.UserError: it is in use, or can't be made.
    """
    try:
        if path is not None:
            os.makedirs(path, exist_ok=True)
            if os.listdir(path):
                raise data.UserError('the folder %s is not empty: name a new '
                                     'one with --run_dir' % path)
            return path
        now = time.strftime('runs/%Y%m%d-%H%M%S')
        for again in itertools.count(1):
            try:
                path = now if again == 1 else '%s-%d' % (now, again)
                os.makedirs(path)
                return path
            except FileExistsError:  # another run began this second
                continue
    except OSError as error:
        raise data.UserError('cannot make the folder %s (%s): name another '
                             'with --run_dir' % (path, error.strerror))


def write_json(path, value):
    data.write_whole(path, (json.dumps(value, indent=2) + '\n').encode())


def main(argv=None):
    """Trains as the flags in argv say; returns the exit status."""
    try:
        flags = parse_flags(argv)
        tf = import_tensorflow()
        try:
            train(tf, flags)
        except tf.errors.ResourceExhaustedError as error:
            raise data.UserError('out of memory (%s): lower --batch_size, '
                                 '--hidden_size or --layer_num'
                                 % str(error).splitlines()[0])
    except data.UserError as error:
        print('error: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    except OSError as error:
        # As a rule stdout: a pipe that nothing reads any more, a full disk.
        # Python flushes it once more as it exits, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print('error: cannot read or write %s (%s): mend that and run again'
              % (error.filename or 'stdout', error.strerror), file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
