"""Ask the NVIDIA driver which GPU TensorFlow 1.15 can use; if none, say why.

TensorFlow 1.15 aborts on a GPU that is too old or has no memory left, so ask before it
does. The driver is asked about all GPUs in another process, because cuInit reads
CUDA_VISIBLE_DEVICES only once, and because a broken driver may hang or crash.
"""
import ast
import ctypes
import functools
import os
import re
import subprocess
import sys
import threading
import typing

# What the wheel tensorflow-gpu 1.15 loads: the driver, CUDA 10.0 and cuDNN 7
# (tensorflow/stream_executor/platform/default/dso_loader.cc).
DRIVER_LIBRARY = 'libcuda.so.1'
CUDA_LIBRARIES = (
    'libcudart.so.10.0', 'libcublas.so.10.0', 'libcufft.so.10.0',
    'libcurand.so.10.0', 'libcusolver.so.10.0', 'libcusparse.so.10.0', 'libcudnn.so.7')

# Compute capabilities. The wheel of TensorFlow has machine code and PTX for these
# (bench/first_start.py). Machine code also runs on later ones of its generation (CUDA
# C++ Programming Guide, binary compatibility). For others the driver compiles the PTX.
COMPILED = ((3, 5), (3, 7), (5, 2), (6, 0), (6, 1), (7, 0))
NEWEST_CAPABILITY = (7, 5)  # in cuBLAS 10.0

# The first drivers for CUDA 10.0 and 12.x on Linux (NVIDIA's CUDA release notes).
DRIVER_10, DRIVER_12 = '410.48', '525.60.13'

# MiB that the tutorial's network needs. With 300, TensorFlow waits for minutes and then
# gives up. Measured with tests/null_cuda: NULL_CUDA_MIB=700 works and 600 does not. A
# context takes 300 of them.
NEEDED_MEMORY = 400

# Seconds to wait for the driver: until a line says so, and at most. A server with many
# GPUs, without nvidia-persistenced, may take half a minute.
PATIENCE, LIMIT = 10, 120

# CUresult and CUdevice_attribute in cuda.h.
OUT_OF_MEMORY, DEVICE_UNAVAILABLE, NO_DEVICE, INVALID_DEVICE = 2, 46, 100, 101
MULTIPROCESSORS, CAPABILITY_MAJOR, CAPABILITY_MINOR = 16, 75, 76

# Advice for a CUresult of cuInit, and for all others.
RESTART = 'see what nvidia-smi says; if that fails too, restart the machine'
ADVICE = {
    NO_DEVICE: 'see what nvidia-smi says; the last driver for a GPU of Maxwell, Pascal '
    'or Volta is 580, and for a K80 470 (docs/gpu.md)',
    304: 'load the module nvidia_uvm: sudo nvidia-modprobe -u -c 0',
    802: 'start the fabric manager: sudo systemctl start nvidia-fabricmanager',
    803: 'restart the machine, as the driver was updated; in a container, take the '
    "image's own libcuda.so.1 out of LD_LIBRARY_PATH",
    804: 'take the folder of cuda-compat out of LD_LIBRARY_PATH',
    999: 'reload nvidia_uvm, which may fail after the machine slept: sudo rmmod '
    'nvidia_uvm; sudo modprobe nvidia_uvm; if that fails, restart the machine'}


class Gpu(typing.NamedTuple):
    """What the driver says of a GPU."""
    name: str
    capability: tuple  # (major, minor), the compute capability
    multiprocessors: int
    context: tuple  # (number, name) of the CUresult of making a context
    memory: tuple  # (free, total) in MiB, or None


class Machine(typing.NamedTuple):
    """What `look` found on a machine."""
    driver: str  # the version of the kernel's driver, or None. WSL2 does not tell it.
    cuda: tuple  # (major, minor), the newest CUDA of the driver, or None
    libraries: dict  # {name: path, or None if it does not load}
    error: tuple  # (number, name) of the CUresult of cuInit; (None, why) if it hangs
    gpus: list  # of `Gpu`
    visible: str  # CUDA_VISIBLE_DEVICES, or None

    @property
    def for_cuda_10(self):
        """Whether TensorFlow is built for CUDA 10.0, as its wheel is."""
        return CUDA_LIBRARIES[0] in self.libraries

    @property
    def ids(self):
        """What CUDA_VISIBLE_DEVICES calls each GPU: its number or its UUID."""
        return (self.visible.split(',') if self.visible else
                list(map(str, range(len(self.gpus)))))


class Verdict(typing.NamedTuple):
    """Whether TensorFlow 1.15 can use a GPU."""
    state: str  # 'usable', 'unusable', or 'busy': it should be usable but is not now
    why: str
    advice: str  # what to do, or None. A usable GPU has one if the driver compiles
    gpu: int = None  # the index of the GPU in `Machine.gpus`


@functools.lru_cache()  # TensorFlow takes memory of the GPU, so do not ask again
def look(folder):
    """Return the `Machine`.

    Args:
        folder: that of TensorFlow's libraries, where it looks for CUDA 10.0 first. None
            if it is not built for CUDA 10.0; then only the driver is looked for.
    """
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    # The answer is the last line, in ASCII. Libraries may print others before it.
    code = ('import sys; sys.path[0] = %a; from training import gpu; '
            'print(ascii(tuple(gpu.look_here(%a))))' % (root, folder))
    child = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
    notice = threading.Timer(PATIENCE, print, [
        'waiting for the NVIDIA driver, %d s at most' % LIMIT], {'file': sys.stderr})
    notice.start()
    try:
        answer, said = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        said = b'not in %d s' % LIMIT
    finally:
        notice.cancel()
        child.kill()  # and do not wait: in a driver that hangs, it may not end
    if child.returncode == 0:
        machine = Machine(*ast.literal_eval(answer.decode().splitlines()[-1]))
        return machine._replace(gpus=[Gpu(*each) for each in machine.gpus])
    why = (said.decode(errors='replace').strip().split('\n')[-1]
           or 'status %d' % child.returncode)
    return Machine(driver_version(), None, {DRIVER_LIBRARY: DRIVER_LIBRARY},
                   (None, why), [], os.environ.get('CUDA_VISIBLE_DEVICES'))


def look_here(folder):
    """Do the work of `look` in this process, with a tuple for each GPU."""
    libraries = {name: locate(name, folder)
                 for name in CUDA_LIBRARIES if folder is not None}
    libraries[DRIVER_LIBRARY] = locate(DRIVER_LIBRARY)
    cuda, error, gpus = None, (0, ''), []
    if libraries[DRIVER_LIBRARY]:
        cuda, error, gpus = ask_driver(ctypes.CDLL(DRIVER_LIBRARY))
    return Machine(driver_version(), cuda, libraries, error, gpus,
                   os.environ.get('CUDA_VISIBLE_DEVICES'))


def driver_version(version_file='/proc/driver/nvidia/version'):
    """Return the version of the kernel's driver as str, or None if it is not told."""
    try:
        with open(version_file) as f:
            found = re.search(r'Kernel Module.*?\s(\d+\.\d[\d.]*)\s', f.read())
    except OSError:
        return None
    return found and found[1]


def locate(name, folder=''):
    """Return the path or the name that loads a library, or None."""
    for path in (os.path.join(folder, name), name):
        try:
            ctypes.CDLL(path)
            return path
        except OSError:
            continue
    return None


def is_loaded():
    """Return whether this process has loaded the driver, as LD_PRELOAD may make it."""
    try:
        return bool(ctypes.CDLL(DRIVER_LIBRARY, os.RTLD_NOLOAD))
    except OSError:
        return False


def ask_driver(cuda):
    """Ask the driver, the library libcuda.so.1.

    Return three fields of `Machine`: cuda, error and gpus.
    """
    def result(number):
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(number, ctypes.byref(name))
        return number, (name.value or b'error %d' % number).decode()

    def ask(function, kind, *args):
        value = kind()
        function(ctypes.byref(value), *args)
        return value.value

    version = ask(cuda.cuDriverGetVersion, ctypes.c_int)  # 10020 is 10.2
    error, gpus = result(cuda.cuInit(0)), []
    count = 0 if error[0] else ask(cuda.cuDeviceGetCount, ctypes.c_int)
    for device in range(count):
        name = ctypes.create_string_buffer(100)
        cuda.cuDeviceGetName(name, len(name), device)
        major, minor, multiprocessors = (
            ask(cuda.cuDeviceGetAttribute, ctypes.c_int, attribute, device)
            for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR, MULTIPROCESSORS))
        context, memory = ctypes.c_void_p(), None
        made = result(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
        if not made[0]:
            cuda.cuCtxSetCurrent(context)
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
            memory = free.value >> 20, total.value >> 20
        gpus.append((name.value.decode(errors='replace'), (major, minor),
                     multiprocessors, made, memory))
    return (version // 1000, version % 1000 // 10), error, gpus


def verdict(machine):
    """Return the `Verdict` on the GPU to use, or on all if none can be used."""
    problem = _no_gpu(machine)
    if problem:
        return Verdict('unusable', *problem)
    found = verdicts(machine)
    best = min(found, key=lambda each: (  # the first with advice, if none is usable
        ('usable', 'busy', 'unusable').index(each.state),
        each.state == 'unusable' and each.advice is None))
    return best._replace(why=reasons(
        machine, [best] if best.state == 'usable' else found))


def verdicts(machine):
    """Return a list with the `Verdict` on each GPU."""
    problem = _no_gpu(machine)
    return [(Verdict('unusable', *problem) if problem else _judge(machine, gpu))
            ._replace(gpu=index) for index, gpu in enumerate(machine.gpus)]


def reasons(machine, found):
    """Return in one line why the verdicts `found` are what they are."""
    if len(machine.gpus) == 1:
        return '%s (%s)' % (found[0].why, details(machine.gpus[0]))
    gpus = {}  # in the order of the verdicts
    for each in found:
        gpus.setdefault(each.why, []).append(machine.ids[each.gpu])
    return '; '.join('GPU %s: %s' % (', '.join(gpus[why]), why) for why in gpus)


def once_installed(machine):
    """Return the `Verdict` on a `Machine` when CUDA 10.0 is installed on it."""
    installed = dict(machine.libraries, **dict.fromkeys(CUDA_LIBRARIES, 'installed'))
    return verdict(machine._replace(libraries=installed))


def is_newer(machine, gpu):
    """Return whether TensorFlow's CUDA 10.0 does not know a GPU."""
    return machine.for_cuda_10 and gpu.capability > NEWEST_CAPABILITY


def _is_too_old(machine, gpu):
    return machine.for_cuda_10 and gpu.capability < COMPILED[0]


def details(gpu):
    """Return the name of a GPU, its compute capability and free memory."""
    return '%s, compute capability %d.%d%s' % (
        gpu.name, *gpu.capability,
        ', %d of %d MiB free' % gpu.memory if gpu.memory else '')


def _no_gpu(machine):
    """Return why no GPU of a machine can be used, and what to do, or None."""
    number, name = machine.error
    if not machine.libraries[DRIVER_LIBRARY] and not machine.driver:
        return ('there is no NVIDIA driver',
                'if there is a GPU, install its driver, %s or newer' % DRIVER_10)
    if not machine.libraries[DRIVER_LIBRARY]:
        return ("the driver's libcuda.so.1 is missing",
                'start a container with docker run --gpus all; outside a '
                'container, install the driver again')
    if number is None:
        return 'the NVIDIA driver gives no answer (%s)' % name, RESTART
    if machine.cuda == (0, 0):
        return ("libcuda.so.1 is the CUDA toolkit's stub, not the driver",
                'take the folder stubs out of LD_LIBRARY_PATH')
    if machine.cuda < (10, 0):
        return ('the NVIDIA driver supports CUDA %d.%d, and TensorFlow 1.15 needs 10.0'
                % machine.cuda, 'update the driver to %s or newer' % DRIVER_10)
    if machine.gpus:
        return None
    for node in ('/dev/nvidiactl', '/dev/nvidia0'):
        if os.path.exists(node) and not os.access(node, os.R_OK | os.W_OK):
            return ('this user may not open /dev/nvidia*',
                    'join the group that may, usually video')
    if machine.visible is not None and number in (0, NO_DEVICE):
        return ('CUDA_VISIBLE_DEVICES=%s shows no GPU' % machine.visible,
                'ask SLURM for one with --gres=gpu:1'
                if machine.visible == 'NoDevFiles' else
                'unset CUDA_VISIBLE_DEVICES, or give it the number of a GPU')
    return 'the NVIDIA driver shows no GPU (%s)' % name, ADVICE.get(number, RESTART)


def _judge(machine, gpu):
    """Return the `Verdict` on a GPU."""
    if _is_too_old(machine, gpu):
        return Verdict('unusable', 'the GPU is too old for TensorFlow 1.15, whose '
                       'lowest compute capability is %d.%d' % COMPILED[0], None)
    missing = [name for name, path in machine.libraries.items() if path is None]
    if missing:
        return Verdict('unusable', 'it could not load ' + ', '.join(missing),
                       'make gpu')
    most = max(other.multiprocessors for other in machine.gpus
               if not _is_too_old(machine, other))
    if gpu.multiprocessors < min(8, most):  # as TensorFlow's gpu_device.cc does
        return Verdict('unusable', 'TensorFlow ignores a small GPU (multiprocessors: '
                       '%d) beside a larger one (%d)' % (gpu.multiprocessors, most),
                       None)
    number, name = gpu.context
    if number in (DEVICE_UNAVAILABLE, INVALID_DEVICE):
        return Verdict('busy', 'another program uses the GPU alone, in exclusive mode',
                       'stop it (nvidia-smi lists it)')
    if number not in (0, OUT_OF_MEMORY):
        return Verdict('busy', 'the GPU does not start, ' + name, RESTART)
    if number or gpu.memory[0] < NEEDED_MEMORY:
        return Verdict('busy', 'other programs use the memory of the GPU',
                       'stop them (nvidia-smi lists them)')
    if is_newer(machine, gpu):  # and needs cuBLAS 12 (see tools/cuda.py)
        return Verdict('usable', 'the GPU is newer than CUDA 10.0',
                       'update the driver to %s or newer, which cuBLAS 12 needs'
                       % DRIVER_12 if machine.cuda < (12, 0) else "if it fails, use "
                       "NVIDIA's build of TensorFlow 1.15 (docs/gpu.md)")
    if machine.for_cuda_10 and not any(
            gpu.capability[0] == major and gpu.capability[1] >= minor
            for major, minor in COMPILED):
        return Verdict('usable', 'TensorFlow has no machine code for this GPU',
                       'wait at the first start, while the driver compiles TensorFlow '
                       'for it')
    return Verdict('usable', 'TensorFlow supports this GPU', None)


def tensorflow_folder():
    """Return the folder for `look`, that of the installed TensorFlow."""
    import tensorflow as tf
    from tensorflow.python.platform import build_info
    # The wheel says 10, conda's package 10.0. NVIDIA's builds have CUDA 11 and 12.
    cuda = getattr(build_info, 'cuda_version_number', None) or '0'
    return tf.sysconfig.get_lib() if re.match(r'10(\.0\b|$)', cuda) else None
