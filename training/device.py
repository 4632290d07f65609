"""Where the graph runs: which device, and the session's config for it."""
import collections
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


def share_cores(config, dynamic_rnn=False, workers=ALONE):
    """Sets how many of the cores share an operation.

    Unrolled by hand, there are two things to do at most times: a row in one
    layer, and another in the next or a weight's gradient. Half of the cores
    for each is faster than all for one after the other.

    Args:
        config: `tf.ConfigProto` of the session to come, which is changed.
        dynamic_rnn: bool, as for `model.build`.
        workers: those that train together; each takes its share of the cores.
    """
    if not dynamic_rnn:
        cores = workers.share_of_cores(len(os.sched_getaffinity(0)))
        config.intra_op_parallelism_threads = max(1, cores // 2)


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
    print('training on the GPU: ' + name, file=sys.stderr)
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
