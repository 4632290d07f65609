"""Where the graph runs: which device, and the session's config for it."""
import ctypes
import os
import re
import sys

import tensorflow as tf
from tensorflow.python.client import device_lib

from training.errors import UserError
from training.workers import ALONE

# What the tensorflow-gpu 1.15 wheel loads: the driver, CUDA 10.0 and cuDNN 7
# (tensorflow/stream_executor/platform/default/dso_loader.cc).
CUDA_LIBRARIES = (
    'libcuda.so.1', 'libcudart.so.10.0', 'libcublas.so.10.0',
    'libcufft.so.10.0', 'libcurand.so.10.0', 'libcusolver.so.10.0',
    'libcusparse.so.10.0', 'libcudnn.so.7')


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
        The GPU's name, or 'CPU'.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if device == 'cpu':
        config.device_count['GPU'] = 0
    gpus = [local.physical_device_desc
            for local in device_lib.list_local_devices(config)
            if local.device_type == 'GPU']
    if gpus:
        name = re.search('name: (.*?),', gpus[0]).group(1)
        print('training on the GPU: ' + name, file=sys.stderr)
        return name
    why = 'as --device cpu asks' if device == 'cpu' else why_no_gpu()
    if device == 'gpu':
        raise UserError('--device gpu: there is no GPU to train on, %s: see '
                        'docs/gpu.md, or use --device auto' % why)
    print('training on the CPU, ' + why, file=sys.stderr)
    return 'CPU'


def loads(library):
    """Returns whether TensorFlow can load a library, given by its name.

    It looks beside its own libraries first, by their RPATH, where make gpu puts
    them, and then where the system's loader does.
    """
    for name in (os.path.join(tf.sysconfig.get_lib(), library), library):
        try:
            ctypes.CDLL(name)
            return True
        except OSError:
            continue
    return False


def why_no_gpu():
    """Returns, as part of a sentence, why TensorFlow found no GPU."""
    if not tf.test.is_built_with_cuda():
        return 'since this TensorFlow is built without CUDA'
    missing = [library for library in CUDA_LIBRARIES if not loads(library)]
    if missing:
        return 'since it could not load ' + ', '.join(missing)
    if 'CUDA_VISIBLE_DEVICES' in os.environ:
        return ('since CUDA_VISIBLE_DEVICES=%s shows it no GPU'
                % os.environ['CUDA_VISIBLE_DEVICES'])
    return 'since the NVIDIA driver shows it no GPU'
