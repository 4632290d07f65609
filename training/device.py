"""Choose the device that the graph runs on, and set up the session for it."""
import collections
import contextlib
import ctypes
import os
import re
import sys

import tensorflow as tf
from tensorflow.python.client import device_lib

from training import gpu
from training.errors import UserError, reason


class Device(collections.namedtuple('Device', ['name', 'unused'])):
    """Where a graph runs.

    name: str, the GPU's name, or 'CPU'.
    unused: str, why the GPU of this machine is not used and what to do, or None.
    """


MOST_THREADS = 16  # a guess: more do not help matmuls as small as a cell's


def share_cores(config, dynamic_rnn=False, workers_here=1):
    """Set the threads of one operation, and the operations at a time, in a config.

    TensorFlow takes these numbers from the first session of a process. An LSTM that is
    unrolled by hand usually has two matmuls ready: two layers at two rows, or the
    gradient of a kernel. On one or two cores, run two matmuls at a time with one
    thread each. On more cores, all threads share each matmul (not measured). With
    dynamic_rnn one matmul runs at a time. workers_here processes share the cores.
    """
    on_linux = hasattr(os, 'sched_getaffinity')
    cores = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count()
    cores = max(1, cores // workers_here)
    threads = min(cores, MOST_THREADS)
    config.inter_op_parallelism_threads = threads
    config.intra_op_parallelism_threads = (
        1 if cores <= 2 and not dynamic_rnn else threads)


def choose(config, device):
    """Choose the `Device` for 'auto', 'gpu' or 'cpu', and print it on stderr.

    Raises:
        UserError: device is 'gpu' and there is none, or the GPU fails.
    """
    if device == 'cpu':
        config.device_count['GPU'] = 0
    with only_first_gpu(device):
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


@contextlib.contextmanager
def only_first_gpu(device='auto'):
    """Show TensorFlow the first GPU only, or none for 'cpu'.

    TensorFlow takes memory on every GPU that it sees when it looks for them.
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
    """Return TensorFlow's descriptions of the GPUs that it can use."""
    try:
        return [local.physical_device_desc
                for local in device_lib.list_local_devices(config)
                if local.device_type == 'GPU']
    except tf.errors.OpError as error:
        raise explain(error) or error


def _use(description):
    name, count = re.search('name: (.*?),', description)[1], gpu.count_visible()
    more = ', the first of %d; CUDA_VISIBLE_DEVICES chooses another' % count
    print('training on the GPU: ' + name + (more if count > 1 else ''), file=sys.stderr)
    capability = re.search(r'compute capability: (\d+)\.(\d+)', description)
    if capability and tuple(map(int, capability.groups())) > gpu.NEWEST_CAPABILITY:
        print('warning: this GPU is newer than CUDA 10.0: %s; if it fails, %s'
              % (gpu.SLOW_START, gpu.NEWER), file=sys.stderr)
    return Device(name, None)


def why_no_gpu():
    """Return why TensorFlow finds no GPU, part of a sentence, and `Device.unused`."""
    if not tf.test.is_built_with_cuda():
        return 'since this TensorFlow is built without CUDA', None
    machine = gpu.look(tf.sysconfig.get_lib())
    if machine.driver:
        _, why, advice = gpu.verdict(machine)
        why = 'since %s: %s' % (why, advice or 'see make check-gpu')
        return why, 'the GPU of this machine was not used, ' + why
    if machine.missing:
        return 'since it could not load ' + ', '.join(machine.missing), None
    if machine.visible is not None:
        return 'since CUDA_VISIBLE_DEVICES=%s shows no GPU' % machine.visible, None
    return 'since the NVIDIA driver shows no GPU', None


SMALLER = 'lower --batch_size, --hidden_size or --layer_num'
NO_MEMORY = ('out of GPU memory',
             'stop other programs on the GPU (see nvidia-smi), or ' + SMALLER)
CUBLAS_FAILED = ('cuBLAS failed on this GPU',
                 'stop other programs on the GPU (see nvidia-smi); if the GPU is newer '
                 'than RTX 20, ' + gpu.NEWER)
# A part of TensorFlow's message: what is wrong, and what to do. The first match counts.
GPU_ERRORS = {
    'CUDA driver version is insufficient': (
        'the NVIDIA driver is too old for CUDA 10.0', 'update it to 410.48 or newer'),
    'CUDA_ERROR_OUT_OF_MEMORY': NO_MEMORY,
    'CUBLAS_STATUS_ALLOC_FAILED': NO_MEMORY,
    'CUBLAS_STATUS_': CUBLAS_FAILED,
    'Blas GEMM launch failed': CUBLAS_FAILED,
    'CUDA_ERROR_': ('the GPU failed',
                    'see nvidia-smi and dmesg, and continue with --resume'),
}


def explain(error):
    """Return the `UserError` for an exception that TensorFlow raised, or None."""
    if not isinstance(error, tf.errors.OpError):
        return None
    for sign, (what, advice) in GPU_ERRORS.items():
        if sign in str(error):
            return UserError('%s (%s): %s' % (what, reason(error), advice))
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return UserError('out of memory (%s): stop other programs, or %s'
                         % (reason(error), SMALLER))
    return None


@contextlib.contextmanager
def keep_memory():
    """Make malloc reuse freed buffers. At the end, give them back to the system.

    By default glibc returns and clears about 20 MB in each step, and some GB in the
    test of 10,000 images. The numbers of the parameters, their defaults and limits
    are glibc's (mallopt(3), malloc.c). Nothing happens with another C library.
    """
    libc = ctypes.CDLL(None) if os.name == 'posix' else None
    if not hasattr(libc, 'mallopt'):
        yield
        return
    M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
    libc.mallopt(M_MMAP_THRESHOLD, 2 ** 25)  # the highest allowed
    libc.mallopt(M_TRIM_THRESHOLD, 2 ** 30)
    libc.mallopt(M_TOP_PAD, 2 ** 26)
    try:
        yield
    finally:
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD):
            libc.mallopt(parameter, 2 ** 17)
        libc.malloc_trim(0)
