"""Diagnose the GPU: can TensorFlow 1.15 use it, and if it cannot, what to do.

    python -m training.gpu    prints the diagnosis (make check-gpu)
"""
import collections
import ctypes
import itertools
import os
import re
import sys

from training.errors import import_tensorflow, reports_errors

# What the wheel tensorflow-gpu 1.15 loads: the driver, CUDA 10.0 and cuDNN 7
# (tensorflow/stream_executor/platform/default/dso_loader.cc).
DRIVER_LIBRARY = 'libcuda.so.1'
CUDA_LIBRARIES = (
    DRIVER_LIBRARY, 'libcudart.so.10.0', 'libcublas.so.10.0', 'libcufft.so.10.0',
    'libcurand.so.10.0', 'libcusolver.so.10.0', 'libcusparse.so.10.0', 'libcudnn.so.7')

# The first driver for CUDA 10.0 on Linux (NVIDIA's release notes of CUDA 10.0).
OLDEST_DRIVER = (410, 48)
# The lowest compute capability in TensorFlow's wheel, and the highest in cuBLAS 10.0.
OLDEST_CAPABILITY, NEWEST_CAPABILITY = (3, 5), (7, 5)

# What to expect of a GPU newer than Turing, and the advice if it fails.
SLOW_START = 'the first start compiles for many minutes, and cuBLAS may fail then'
NEWER = ("try make gpu CUBLAS=12, which was not tested on a GPU, or use NVIDIA's "
         'container (docs/gpu.md)')


class Machine(collections.namedtuple('Machine', [
        'driver', 'libraries', 'error', 'gpus', 'visible'])):
    """What `look` found on a machine.

    driver: str, the version of the kernel's driver, or None.
    libraries: {name: path, or None if it does not load} for `CUDA_LIBRARIES`.
    error: int, what cuInit returned; 0 is success.
    gpus: list of (name, (major, minor)), the name and the compute capability.
    visible: str, CUDA_VISIBLE_DEVICES, or None.
    """

    @property
    def missing(self):
        """The names of the libraries that do not load."""
        return [name for name, path in self.libraries.items() if path is None]


def look(folder):
    """Return the `Machine`; folder has TensorFlow's libraries, where it looks first."""
    libraries = {name: locate(name, folder) for name in CUDA_LIBRARIES}
    error, gpus = 0, []
    if libraries[DRIVER_LIBRARY]:
        error, gpus = ask_driver(ctypes.CDLL(libraries[DRIVER_LIBRARY]))
    return Machine(driver_version(), libraries, error, gpus,
                   os.environ.get('CUDA_VISIBLE_DEVICES'))


def driver_version(version_file='/proc/driver/nvidia/version'):
    """Return the version of the kernel's driver as str, or None without a driver."""
    try:
        with open(version_file) as f:
            found = re.search(r'Kernel Module.*?\s(\d+\.\d[\d.]*)\s', f.read())
    except OSError:
        return None
    return found and found[1]


def locate(name, folder):
    """Return the path or the name that loads a library, or None."""
    for path in (os.path.join(folder, name), name):
        try:
            ctypes.CDLL(path)
            return path
        except OSError:
            continue
    return None


def ask_driver(cuda):
    """Ask the driver, the library libcuda.so.1; return error and gpus of `Machine`."""
    error = cuda.cuInit(0)
    if error:
        return error, []
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    gpus = []
    for device in range(count.value):
        name = ctypes.create_string_buffer(100)
        cuda.cuDeviceGetName(name, len(name), device)
        capability = []
        for attribute in (75, 76):  # COMPUTE_CAPABILITY_MAJOR and _MINOR
            value = ctypes.c_int()
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            capability.append(value.value)
        gpus.append((name.value.decode(), tuple(capability)))
    return 0, gpus


def count_visible(folder='/proc/driver/nvidia/gpus'):
    """Return how many GPUs CUDA_VISIBLE_DEVICES shows, or else the kernel's driver."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        # CUDA stops at the first entry that names no GPU.
        return len(list(itertools.takewhile(
            lambda gpu: gpu and gpu[0] != '-', visible.split(','))))
    return len(os.listdir(folder)) if os.path.isdir(folder) else 0


def verdict(machine):
    """Return whether TensorFlow 1.15 can use the GPU, why, and what to do, if anything.
    """
    driver = machine.driver
    if not driver and DRIVER_LIBRARY in machine.missing:
        return (False, 'there is no NVIDIA driver',
                'if there is a GPU, install its driver, 410.48 or newer')
    if driver and tuple(map(int, driver.split('.')[:2])) < OLDEST_DRIVER:
        return (False, 'the NVIDIA driver is %s, and CUDA 10.0 needs 410.48 or newer'
                % driver, 'update the driver')
    if DRIVER_LIBRARY in machine.missing:
        return (False, "the driver's %s is missing" % DRIVER_LIBRARY,
                'start a container with docker run --gpus all; outside a container, '
                'install the driver again')
    if machine.error or not machine.gpus:
        return (False, *_no_gpu(machine))
    name, capability = machine.gpus[0]
    gpu = '%s, compute capability %d.%d' % (name, *capability)
    if capability < OLDEST_CAPABILITY:
        return (False, 'the GPU is too old for TensorFlow 1.15 (%s; the lowest is 3.5)'
                % gpu, 'train on the CPU with --device cpu')
    if machine.missing:
        return (False, 'it could not load ' + ', '.join(machine.missing),
                'make gpu' if capability <= NEWEST_CAPABILITY else NEWER)
    if capability > NEWEST_CAPABILITY:
        return (True, 'the GPU is newer than CUDA 10.0 (%s): %s' % (gpu, SLOW_START),
                'if it fails, ' + NEWER)
    return True, 'CUDA 10.0 supports this GPU (%s)' % gpu, None


def _no_gpu(machine):
    """Return why the driver shows no GPU, and what to do."""
    if machine.visible is not None:
        return ('CUDA_VISIBLE_DEVICES=%s shows no GPU' % machine.visible,
                'unset CUDA_VISIBLE_DEVICES, or give it the number of a GPU')
    for node in ('/dev/nvidiactl', '/dev/nvidia0'):
        if os.path.exists(node) and not os.access(node, os.R_OK | os.W_OK):
            return ('this user may not open /dev/nvidia*',
                    'join the group that may, usually video')
    return ('the NVIDIA driver shows no GPU (cuInit: %d)' % machine.error,
            'see what nvidia-smi says')


def describe(machine):
    """Return the diagnosis as a list of lines."""
    usable, why, advice = verdict(machine)
    return [
        'driver: %s' % (machine.driver or 'none'),
        *['GPU: %s, compute capability %d.%d' % (name, *capability)
          for name, capability in machine.gpus],
        *['%s: %s' % (name, path or 'not found')
          for name, path in machine.libraries.items()],
        'TensorFlow 1.15 %s use a GPU here: %s' % ('can' if usable else 'cannot', why),
        *(['next: ' + advice] if advice else [])]


@reports_errors
def main(argv=None):
    """Print the diagnosis of this machine; return 1 if no GPU can be used."""
    import_tensorflow()
    import tensorflow as tf
    machine = look(tf.sysconfig.get_lib())
    print('\n'.join(describe(machine)))
    return 0 if verdict(machine)[0] else 1


if __name__ == '__main__':
    sys.exit(main())
