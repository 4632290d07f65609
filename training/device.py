"""Choose the device that the graph runs on, and set up the session for it."""
import collections
import contextlib
import ctypes
import functools
import os
import struct
import sys
import tempfile

import tensorflow as tf
from tensorflow.python.client import device_lib

from training import environment, gpu
from training.errors import UserError, reason


class Device(collections.namedtuple('Device', ['name', 'where', 'substitute'])):
    """Where a graph runs.

    name: str, the GPU's name, or 'CPU'.
    where: str, the end of a sentence: which GPU, or the CPU and why.
    substitute: bool, whether it is the CPU because no GPU can be used.
    """


MOST_THREADS = 16  # a guess: more do not help matmuls as small as a cell's


def share_cores(config, dynamic_rnn=False, workers_here=1):
    """Set the threads of one operation, and the operations at a time, in a config.

    TensorFlow takes these numbers from the first session of a process. An LSTM that is
    unrolled by hand usually has two matmuls ready: two layers at two rows, or the
    gradient of a kernel. On one or two cores with AVX-512, run them with one thread
    each. Without AVX-512 (measured on an AMD Zen 2), a thread alone takes twice as long
    for a kernel of 1024 columns, so let two threads share each matmul, even on one
    core. On more cores, all threads share each matmul (not measured). With dynamic_rnn
    one matmul runs at a time. workers_here processes share the cores.
    """
    cores = max(1, environment.cores() // workers_here)
    threads = max(2, min(cores, MOST_THREADS))
    config.inter_op_parallelism_threads = threads
    config.intra_op_parallelism_threads = (
        1 if cores <= 2 and not dynamic_rnn and has_avx512() else threads)


def has_avx512():
    """Return whether the processor has AVX-512; False where Linux does not say."""
    try:
        with open('/proc/cpuinfo') as f:
            return ' avx512f ' in f.read()
    except OSError:
        return False


def choose(config, device):
    """Choose the `Device` for 'auto', 'gpu' or 'cpu', and set up a config for it.

    Raises:
        UserError: the GPU is busy, TensorFlow fails on it, or device is 'gpu' and there
            is none that can be used.
    """
    why = 'as --device cpu asks'
    if device != 'cpu':
        machine = gpu.look(gpu.tensorflow_folder())
        state, why, advice, _ = found = gpu.verdict(machine)
        if not tf.test.is_built_with_cuda():
            state, advice = 'unusable', None
            why = 'this TensorFlow is built without CUDA'
        if state == 'usable':
            return _use(config, machine, found)
        ways = [advice] * bool(advice) + ['use --device cpu']
        if state == 'busy':
            raise UserError('%s: %s' % (why, ', or '.join(ways)))
        if device == 'gpu':
            raise UserError('--device gpu: there is no GPU to use, since %s: %s'
                            % (why, ', or '.join(ways)))
        why = 'since %s: %s' % (why, advice) if advice else 'since ' + why
    config.device_count['GPU'] = 0
    # The optimizers take 0.1 to 0.3 s at the first run of each part of the graph. On a
    # CPU they save 2 % of a step at most (make bench FLAGS=ablation).
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    _hide_driver()
    with _visible('-1'), _without_error(b'failed call to cuInit'):
        _list_gpus(config)  # TensorFlow looks for GPUs once in a process: now
    return Device('CPU', 'the CPU, ' + why, device != 'cpu')


def _use(config, machine, found):
    """Return the `Device` of the GPU that a `gpu.Verdict` found usable."""
    name, chosen = machine.gpus[found.gpu].name, machine.ids[found.gpu]
    if found.advice:
        print('warning: TensorFlow has no machine code for %s. At the first start the '
              'driver compiles it, which takes five minutes or more: %s'
              % (name, found.advice), file=sys.stderr)
    with _visible(chosen):  # TensorFlow takes memory on all that it sees
        if not _list_gpus(config):
            raise UserError('TensorFlow does not list the GPU (%s): see what it says '
                            'with TF_CPP_MIN_LOG_LEVEL=0, or use --device cpu' % name)
    more = ', GPU %s of %d%s; CUDA_VISIBLE_DEVICES chooses another' % (
        chosen, len(machine.gpus), found.gpu and ', as ' + gpu.reasons(
            machine, gpu.verdicts(machine)[:found.gpu]) or '')
    return Device(name, 'the GPU: %s%s' % (
        name, more if len(machine.gpus) > 1 else ''), False)


def _list_gpus(config):
    """Return the GPUs that TensorFlow lists."""
    try:
        return [local for local in device_lib.list_local_devices(config)
                if local.device_type == 'GPU']
    except tf.errors.OpError as error:
        raise explain(error, True) or UserError(
            'TensorFlow cannot list the GPUs (%s): fix that, or use --device cpu'
            % reason(error))


@contextlib.contextmanager
def _visible(gpus):
    """Set CUDA_VISIBLE_DEVICES in the block."""
    before = {name: value for name, value in os.environ.items()
              if name == 'CUDA_VISIBLE_DEVICES'}
    os.environ['CUDA_VISIBLE_DEVICES'] = gpus
    try:
        yield
    finally:
        del os.environ['CUDA_VISIBLE_DEVICES']
        os.environ.update(before)


@functools.lru_cache()
def _hide_driver():
    """Load an empty libcuda.so.1, which TensorFlow then takes for the driver.

    TensorFlow starts the driver even if all GPUs are hidden, and a broken one hangs or
    crashes. The file has an ELF header, three segments, a dynamic section and a name.
    """
    if gpu.is_loaded():  # the driver itself
        if gpu.look(gpu.tensorflow_folder()).error[0] is None:
            raise UserError('the NVIDIA driver gives no answer, and LD_PRELOAD makes '
                            'TensorFlow wait for it: unset LD_PRELOAD')
        return
    with tempfile.NamedTemporaryFile() as f, contextlib.suppress(OSError):
        f.write(struct.pack('<4s12B2HI3QI6H', b'\x7fELF', 2, 1, 1, *bytes(9),
                            3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0))
        # PT_LOAD, PT_DYNAMIC, PT_GNU_STACK.
        for kind, at, size in (1, 0, 342), (2, 232, 96), (0x6474e551, 0, 0):
            f.write(struct.pack('<2I6Q', kind, 6, at, at, at, size, size, 4096))
        # DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME, DT_NULL.
        f.write(struct.pack('<12Q14s', 5, 328, 6, 328, 10, 14, 11, 24, 14, 1, 0, 0,
                            b'\0libcuda.so.1\0'))
        f.flush()
        ctypes.CDLL(f.name)


@contextlib.contextmanager
def _without_error(harmless):
    """Drop lines with the bytes `harmless` that C++ prints on stderr in the block."""
    with tempfile.TemporaryFile() as log:
        stderr = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            log.seek(0)
            with contextlib.suppress(OSError):  # stderr is a full disk, or the like
                for line in log:
                    if harmless not in line:
                        os.write(2, line)


def is_out_of_memory(error):
    """Return whether an exception of TensorFlow says that memory is short."""
    return isinstance(error, tf.errors.ResourceExhaustedError) or any(
        sign in str(error) for sign in (
            'Dst tensor is not initialized',  # no GPU memory for what is fed
            'CUDA_ERROR_OUT_OF_MEMORY', 'CUBLAS_STATUS_ALLOC_FAILED',
            'Status: out of memory'))


def explain(error, on_gpu, can_shrink=True):
    """Return the `UserError` for an exception that TensorFlow raised, or None.

    on_gpu: bool, whether the graph runs on a GPU.
    can_shrink: bool, whether the user may choose a smaller network or batch.
    """
    if not isinstance(error, tf.errors.OpError):
        return None
    others = 'stop other programs on the GPU (nvidia-smi lists them)'
    if is_out_of_memory(error):
        what = 'out of GPU memory' if on_gpu else 'out of memory'
        advice = others if on_gpu else 'stop other programs'
        if can_shrink:
            advice += ', or lower --batch_size, --hidden_size or --layer_num'
    elif 'Blas ' in str(error):  # which fails after any other failure of the GPU, too
        what = 'the GPU failed'
        advice = ('see what nvidia-smi and dmesg say, %s, or use --device cpu; if the '
                  'GPU is newer than RTX 20, see docs/gpu.md' % others)
    elif on_gpu and (isinstance(error, tf.errors.InternalError)
                     or 'memcopy' in str(error)):
        what = 'the GPU failed'
        advice = 'see what nvidia-smi and dmesg say, or use --device cpu'
    else:
        return None
    return UserError('%s (%s): %s' % (what, reason(error), advice))
