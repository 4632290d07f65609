"""Where the graph runs: which device, and the session's config for it."""
import collections
import contextlib
import os
import re
import sys

import tensorflow as tf
from tensorflow.python.client import device_lib

from training import cards
from training.errors import UserError
from training.workers import ALONE


class Device(collections.namedtuple('Device', ['name', 'unused'])):
    """Where a graph runs.

    name: str, the GPU's name, or 'CPU'.
    unused: str, a sentence about a card that is there and is not used, with
        what to do; or None.
    """


# More threads gain nothing for products as small as those of a row, 128 x 1024 by
# default. A guess: no machine with more than 2 cores was at hand.
MOST_THREADS = 16


def share_cores(config, dynamic_rnn=False, workers=ALONE):
    """Sets how many threads share an operation, and how many run side by side.

    The first session of a process sets it for all that follow.

    Unrolled by hand, there are two products to take at most times: a row's in
    one layer, and another's in the next or a weight's gradient. On one core or
    two, each product has a thread: that was the faster on a processor with
    AVX-512, and the slower by 5 % on one without. On more, two threads would
    leave cores idle: they all share each product (not measured).

    Args:
        config: `tf.ConfigProto` of the session to come, which is changed.
        dynamic_rnn: bool, as for `model.build`; one product runs at a time.
        workers: those that train together; each takes its share of the cores.
    """
    cores = max(1, workers.share_of_cores(_cores()))
    threads = min(cores, MOST_THREADS)
    config.inter_op_parallelism_threads = threads
    config.intra_op_parallelism_threads = (
        1 if cores <= 2 and not dynamic_rnn else threads)


def choose(config, device):
    """Says on stderr where the graph will run.

    Args:
        config: `tf.ConfigProto` of the session to come; for 'cpu' it is
            changed to hide the GPUs.
        device: 'auto', 'gpu' or 'cpu'.

    Returns:
        A `Device`.

    Raises:
        UserError: a GPU is asked for and there is none, or the card fails.
    """
    if device == 'cpu':
        config.device_count['GPU'] = 0
    with one_card(device):
        gpus = _list_gpus(config)
    if gpus:
        return _use(gpus[0])
    why, unused = 'as --device cpu asks', None
    if device != 'cpu':
        why, unused = why_no_gpu()
    if device == 'gpu':
        raise UserError('--device gpu: there is no GPU to train on, %s: see '
                        'docs/gpu.md, or use --device auto' % why)
    print('training on the CPU, ' + why, file=sys.stderr)
    return Device('CPU', unused)


def _cores():
    """Returns how many cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


@contextlib.contextmanager
def one_card(device='auto'):
    """Shows TensorFlow one card, or none for 'cpu'.

    It takes some memory on every card that it is shown, when it first looks
    for them.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    os.environ['CUDA_VISIBLE_DEVICES'] = (
        '-1' if device == 'cpu' else '0' if visible is None
        else visible.split(',')[0])
    try:
        yield
    finally:
        del os.environ['CUDA_VISIBLE_DEVICES']
        if visible is not None:
            os.environ['CUDA_VISIBLE_DEVICES'] = visible


def _list_gpus(config):
    """Returns TensorFlow's descriptions of the GPUs that it can use."""
    try:
        return [local.physical_device_desc
                for local in device_lib.list_local_devices(config)
                if local.device_type == 'GPU']
    except tf.errors.OpError as error:
        raise explain(error) or error


def _use(description):
    name = re.search('name: (.*?),', description).group(1)
    shown = cards.count_shown()
    print('training on the GPU: %s%s' % (name, '' if shown < 2 else (
        ', the first of %d; CUDA_VISIBLE_DEVICES names another' % shown)),
        file=sys.stderr)
    capability = re.search(r'compute capability: (\d+)\.(\d+)', description)
    if capability and tuple(map(int, capability.groups())) > cards.NEWEST_CARD:
        print('warning: this card is newer than CUDA 10.0: the first start compiles '
              'for many minutes, and cuBLAS may fail then; if it fails, '
              + cards.NEWER, file=sys.stderr)
    return Device(name, None)


def why_no_gpu():
    """Says why TensorFlow found no GPU.

    Returns:
        Part of a sentence; and, where there is a driver, the sentence of
        `Device.unused`, else None.
    """
    if not tf.test.is_built_with_cuda():
        return 'since this TensorFlow is built without CUDA', None
    machine = cards.look(tf.sysconfig.get_lib())
    if machine.driver:
        _, why, what = cards.verdict(machine)
        return ('since %s: %s' % (why, what or 'see make check-gpu'),
                'the card here was not used, since %s: %s'
                % (why, what or 'see make check-gpu'))
    if machine.missing:
        return 'since it could not load ' + ', '.join(machine.missing), None
    if machine.visible is not None:
        return ('since CUDA_VISIBLE_DEVICES=%s shows it no GPU'
                % machine.visible, None)
    return 'since the NVIDIA driver shows it no GPU', None


# What TensorFlow and CUDA say of a card, and what to do.
CARD_ERRORS = (
    ('CUDA driver version is insufficient',
     'the NVIDIA driver is too old for CUDA 10.0', 'update it to 410.48 or newer'),
    ('CUDA_ERROR_OUT_OF_MEMORY', "out of the card's memory",
     'end what else uses it (see nvidia-smi), or lower --batch_size, --hidden_size '
     'or --layer_num'),
    ('CUBLAS_STATUS_ALLOC_FAILED', "out of the card's memory",
     'end what else uses it (see nvidia-smi), or lower --batch_size, --hidden_size '
     'or --layer_num'),
    ('CUBLAS_STATUS_', 'cuBLAS failed on this card',
     'end what else uses it (see nvidia-smi); for a card newer than RTX 20, '
     + cards.NEWER),
    ('Blas GEMM launch failed', 'cuBLAS failed on this card',
     'end what else uses it (see nvidia-smi); for a card newer than RTX 20, '
     + cards.NEWER),
    ('CUDA_ERROR_', 'the card failed',
     'see nvidia-smi and dmesg, and go on with --resume'),
)


def explain(error):
    """Returns the `UserError` for what TensorFlow raised, or None.

    Args:
        error: an exception.
    """
    said = str(error)
    first = said.splitlines()[0] if said else ''
    if isinstance(error, tf.errors.OpError):
        for sign, what, advice in CARD_ERRORS:
            if sign in said:
                return UserError('%s (%s): %s' % (what, first, advice))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UserError('out of memory (%s): lower --batch_size, --hidden_size or '
                         '--layer_num' % first)
    return None
