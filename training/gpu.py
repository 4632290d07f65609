"""Ask the NVIDIA driver whether TensorFlow 1.15 can use the GPU; if not, say why.

    python -m training.gpu    prints the diagnosis (make check-gpu)

TensorFlow 1.15 aborts on a GPU that is too old or has no memory left, so ask before it
does. The driver is asked in another process, because cuInit reads
CUDA_VISIBLE_DEVICES only once.
"""
import ast
import collections
import ctypes
import os
import re
import subprocess
import sys

from training.environment import import_tensorflow
from training.errors import UserError, reports_errors

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

# The first drivers for CUDA 10.0 and 12.0 on Linux (NVIDIA's CUDA release notes).
DRIVER_10, DRIVER_12 = '410.48', '525.60.13'

# MiB that the tutorial's network needs. With 300, TensorFlow waits for minutes and then
# gives up. Measured with tests/null_cuda: NULL_CUDA_MIB=700 works and 600 does not. A
# context takes 300 of them.
NEEDED_MEMORY = 400

# CUresult and CUdevice_attribute in cuda.h.
OUT_OF_MEMORY, DEVICE_UNAVAILABLE, NO_DEVICE, INVALID_DEVICE = 2, 46, 100, 101
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76

# Advice for a GPU newer than Turing, which needs cuBLAS 12 (see tools/cuda.py).
NEWER = "if it fails, use NVIDIA's build of TensorFlow 1.15 (docs/gpu.md)"
WAIT = 'wait at the first start, while the driver compiles TensorFlow for it'
UPDATE = 'update the driver to %s or newer, which cuBLAS 12 needs' % DRIVER_12


class Machine(collections.namedtuple('Machine', [
        'driver', 'cuda', 'libraries', 'error', 'gpus', 'context', 'memory',
        'visible'])):
    """What `look` found on a machine.

    driver: str, the version of the kernel's driver, or None. WSL2 does not tell it.
    cuda: (major, minor), the newest CUDA of the driver, or None without libcuda.so.1.
    libraries: {name: path, or None if it does not load}.
    error: (number, name) of the CUresult of cuInit; 0 is success.
    gpus: list of (name, (major, minor)), the name and the compute capability.
    context: (number, name) of the CUresult of making a context on the first GPU.
    memory: (free, total) of the first GPU in MiB, or None.
    visible: str, CUDA_VISIBLE_DEVICES, or None.
    """

    @property
    def for_cuda_10(self):
        """Whether TensorFlow is built for CUDA 10.0, as its wheel is."""
        return CUDA_LIBRARIES[0] in self.libraries


class Verdict(collections.namedtuple('Verdict', ['state', 'why', 'advice'])):
    """Whether TensorFlow 1.15 can use the GPU.

    state: 'usable', 'unusable', or 'busy' if it should be usable but is not now.
    why: str, the reason.
    advice: str, what to do, or None.
    """


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
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    if done.returncode:
        said = done.stderr.decode(errors='replace').strip().split('\n')[-1]
        raise UserError('the NVIDIA driver gives no answer (%s): see what nvidia-smi '
                        'says, or use --device cpu'
                        % (said or 'status %d' % done.returncode))
    return Machine(*ast.literal_eval(done.stdout.decode().splitlines()[-1]))


def look_here(folder):
    """Do the work of `look` in this process, which then has a context on the GPU."""
    libraries = {name: locate(name, folder)
                 for name in CUDA_LIBRARIES if folder is not None}
    libraries[DRIVER_LIBRARY] = locate(DRIVER_LIBRARY)
    answers = {}
    if libraries[DRIVER_LIBRARY]:
        answers = ask_driver(ctypes.CDLL(DRIVER_LIBRARY))
    nothing = dict(cuda=None, error=(0, ''), gpus=[], context=(0, ''), memory=None)
    return Machine(driver=driver_version(), libraries=libraries,
                   visible=os.environ.get('CUDA_VISIBLE_DEVICES'),
                   **dict(nothing, **answers))


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


def ask_driver(cuda):
    """Ask the driver, the library libcuda.so.1; return fields of `Machine`."""
    def result(number):
        name = ctypes.c_char_p()
        cuda.cuGetErrorName(number, ctypes.byref(name))
        return number, (name.value or b'error %d' % number).decode()

    def ask(function, kind, *args):
        value = kind()
        function(ctypes.byref(value), *args)
        return value.value

    version = ask(cuda.cuDriverGetVersion, ctypes.c_int)  # 10020 is 10.2
    answers = {'cuda': (version // 1000, version % 1000 // 10),
               'error': result(cuda.cuInit(0)), 'gpus': []}
    if answers['error'][0]:
        return answers
    for device in range(ask(cuda.cuDeviceGetCount, ctypes.c_int)):
        name = ctypes.create_string_buffer(100)
        cuda.cuDeviceGetName(name, len(name), device)
        answers['gpus'].append((name.value.decode(errors='replace'), tuple(
            ask(cuda.cuDeviceGetAttribute, ctypes.c_int, attribute, device)
            for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR))))
    context = ctypes.c_void_p()
    answers['context'] = result(
        cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    if not answers['context'][0]:
        cuda.cuCtxSetCurrent(context)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        answers['memory'] = free.value >> 20, total.value >> 20
    return answers


def verdict(machine):
    """Return the `Verdict` on a `Machine`."""
    if not machine.libraries[DRIVER_LIBRARY] and not machine.driver:
        return Verdict('unusable', 'there is no NVIDIA driver',
                       'if there is a GPU, install its driver, %s or newer' % DRIVER_10)
    if not machine.libraries[DRIVER_LIBRARY]:
        return Verdict('unusable', "the driver's libcuda.so.1 is missing",
                       'start a container with docker run --gpus all; outside a '
                       'container, install the driver again')
    if machine.cuda < (10, 0):
        return Verdict('unusable', 'the NVIDIA driver supports CUDA %d.%d, and '
                       'TensorFlow 1.15 needs 10.0' % machine.cuda,
                       'update the driver to %s or newer' % DRIVER_10)
    if machine.error[0] or not machine.gpus:
        return Verdict('unusable', *_no_gpu(machine))
    problem = _unsupported(machine)
    if problem:
        return Verdict('unusable', *problem)
    problem = _busy(machine)
    if problem:
        return Verdict('busy', *problem)
    if is_newer(machine):
        return Verdict('usable', 'the GPU is newer than CUDA 10.0 (%s)' % _gpu(machine),
                       NEWER if machine.cuda >= (12, 0) else UPDATE)
    if is_compiled_by_driver(machine):
        return Verdict('usable', 'TensorFlow has no machine code for this GPU (%s)'
                       % _gpu(machine), WAIT)
    return Verdict('usable', 'TensorFlow supports this GPU (%s)' % _gpu(machine), None)


def is_newer(machine):
    """Return whether TensorFlow's CUDA 10.0 does not know the first GPU, if any."""
    return (machine.for_cuda_10 and bool(machine.gpus)
            and machine.gpus[0][1] > NEWEST_CAPABILITY)


def is_compiled_by_driver(machine):
    """Return whether TensorFlow's wheel has no machine code for the first GPU."""
    major, minor = machine.gpus[0][1]
    return machine.for_cuda_10 and (is_newer(machine) or not any(
        major == compiled[0] and minor >= compiled[1] for compiled in COMPILED))


def would_be_usable(machine):
    """Return whether TensorFlow can use the GPU once CUDA 10.0 is installed."""
    installed = dict(machine.libraries, **dict.fromkeys(CUDA_LIBRARIES, 'installed'))
    return verdict(machine._replace(libraries=installed)).state != 'unusable'


def _gpu(machine):
    return '%s, compute capability %d.%d' % (machine.gpus[0][0], *machine.gpus[0][1])


def _no_gpu(machine):
    """Return why the driver shows no GPU, and what to do."""
    if machine.visible is not None and machine.error[0] in (0, NO_DEVICE):
        return ('CUDA_VISIBLE_DEVICES=%s shows no GPU' % machine.visible,
                'unset CUDA_VISIBLE_DEVICES, or give it the number of a GPU')
    for node in ('/dev/nvidiactl', '/dev/nvidia0'):
        if os.path.exists(node) and not os.access(node, os.R_OK | os.W_OK):
            return ('this user may not open /dev/nvidia*',
                    'join the group that may, usually video')
    return ('the NVIDIA driver shows no GPU (%s)' % machine.error[1],
            'see what nvidia-smi says; if that fails too, restart the machine')


def _unsupported(machine):
    """Return why TensorFlow cannot use the first GPU, and what to do, or None."""
    if not machine.for_cuda_10:
        return None  # its limits are not known here
    if machine.gpus[0][1] < COMPILED[0]:
        return ('the GPU is too old for TensorFlow 1.15 (%s; the lowest is %d.%d)'
                % (_gpu(machine), *COMPILED[0]), None)
    missing = [name for name, path in machine.libraries.items() if path is None]
    return missing and ('it could not load ' + ', '.join(missing), 'make gpu')


def _busy(machine):
    """Return why the first GPU cannot be used now, and what to do, or None."""
    (number, name), gpu = machine.context, machine.gpus[0][0]
    if number in (DEVICE_UNAVAILABLE, INVALID_DEVICE):
        return ('another program uses the GPU alone (%s, exclusive mode)' % gpu,
                'stop it (nvidia-smi lists it)')
    if number not in (0, OUT_OF_MEMORY):
        return ('the GPU does not start (%s, %s)' % (gpu, name),
                'see what nvidia-smi says; if that fails too, restart the machine')
    free = machine.memory[0] if machine.memory else 0
    if free < NEEDED_MEMORY:
        return ('other programs use the memory of the GPU (%s, %d MiB free)'
                % (gpu, free), 'stop them (nvidia-smi lists them)')
    return None


def describe(machine):
    """Return the diagnosis as a list of lines."""
    state, why, advice = verdict(machine)
    return [
        'driver: %s' % (machine.driver or (
            'present, version unknown' if machine.cuda else 'none')),
        *(['CUDA of the driver: %d.%d' % machine.cuda] if machine.cuda else []),
        *['GPU: %s, compute capability %d.%d' % (name, *capability)
          for name, capability in machine.gpus],
        *(['memory of the first GPU: %d of %d MiB free' % machine.memory]
          if machine.memory else []),
        *['%s: %s' % (name, path or 'not found')
          for name, path in machine.libraries.items()],
        'TensorFlow 1.15 %s use a GPU here: %s' % (
            'cannot' if state != 'usable' else 'may' if advice else 'can', why),
        *(['next: ' + advice] if advice else [])]


def tensorflow_folder():
    """Return the folder for `look`, that of the installed TensorFlow."""
    import tensorflow as tf
    from tensorflow.python.platform import build_info
    # NVIDIA's own builds of TensorFlow 1.15 are for CUDA 11 and 12.
    cuda = getattr(build_info, 'cuda_version_number', None)
    return tf.sysconfig.get_lib() if cuda == '10' else None


@reports_errors
def main(argv=None):
    """Print the diagnosis of this machine; return 1 if no GPU can be used."""
    import_tensorflow()
    machine = look(tensorflow_folder())
    print('\n'.join(describe(machine)))
    return 0 if verdict(machine).state == 'usable' else 1


if __name__ == '__main__':
    sys.exit(main())
