"""NVIDIA's cards: what is there, and whether TensorFlow 1.15 can use it.

    python -m training.cards    says it, and what to do; make check-gpu calls it
"""
import collections
import ctypes
import itertools
import os
import re
import sys

# What the tensorflow-gpu 1.15 wheel loads: the driver, CUDA 10.0 and cuDNN 7
# (tensorflow/stream_executor/platform/default/dso_loader.cc).
DRIVER_LIBRARY = 'libcuda.so.1'
CUDA_LIBRARIES = (
    DRIVER_LIBRARY, 'libcudart.so.10.0', 'libcublas.so.10.0',
    'libcufft.so.10.0', 'libcurand.so.10.0', 'libcusolver.so.10.0',
    'libcusparse.so.10.0', 'libcudnn.so.7')

# The first driver for CUDA 10.0 on Linux (NVIDIA's release notes of CUDA 10.0).
OLDEST_DRIVER = (410, 48)
# Compute capabilities with machine code in TensorFlow's wheel, from the lowest,
# and in CUDA 10.0's cuBLAS, to the highest.
OLDEST_CARD, NEWEST_CARD = (3, 5), (7, 5)

# What to do with a card that is newer, and with which cuBLAS 10.0 fails.
NEWER = ("try make gpu CUBLAS=12, which was not tried on a card, or use NVIDIA's "
         'container (docs/gpu.md)')


class Machine(collections.namedtuple('Machine', [
        'driver', 'libraries', 'error', 'cards', 'visible'])):
    """What was found on a machine.

    driver: str, the version of the kernel's driver, or None.
    libraries: {name: path, or None where it does not load}, of `CUDA_LIBRARIES`.
    error: int, what cuInit returned; 0 is success.
    cards: a list of (name, (major, minor)), name and compute capability.
    visible: str, CUDA_VISIBLE_DEVICES, or None.
    """

    @property
    def missing(self):
        """The libraries that do not load, a list."""
        return [name for name, path in self.libraries.items() if path is None]


def look(folder, version_file='/proc/driver/nvidia/version'):
    """Returns the `Machine` that this is.

    Args:
        folder: str, the folder of TensorFlow's own libraries, which it looks in
            first, by their RPATH.
        version_file: str, where the kernel's driver says its version.
    """
    libraries = {name: locate(name, folder) for name in CUDA_LIBRARIES}
    error, cards = 0, []
    if libraries[DRIVER_LIBRARY]:
        error, cards = ask_driver(ctypes.CDLL(libraries[DRIVER_LIBRARY]))
    return Machine(driver_version(version_file), libraries, error, cards,
                   os.environ.get('CUDA_VISIBLE_DEVICES'))


def driver_version(version_file):
    """Returns the version of the kernel's driver, a str, or None."""
    try:
        with open(version_file) as f:
            found = re.search(r'Kernel Module.*?\s(\d+\.\d[\d.]*)\s', f.read())
    except OSError:
        return None
    return found and found[1]


def locate(name, folder):
    """Returns the path or name that a library loads by, or None."""
    for path in (os.path.join(folder, name), name):
        try:
            ctypes.CDLL(path)
            return path
        except OSError:
            continue
    return None


def ask_driver(cuda):
    """Asks NVIDIA's driver for its cards (the CUDA Driver API).

    Args:
        cuda: the library libcuda.so.1.

    Returns:
        What cuInit returned, an int, and the cards, as in `Machine`.
    """
    error = cuda.cuInit(0)
    if error:
        return error, []
    count = ctypes.c_int()
    cuda.cuDeviceGetCount(ctypes.byref(count))
    cards = []
    for device in range(count.value):
        name = ctypes.create_string_buffer(100)
        cuda.cuDeviceGetName(name, len(name), device)
        capability = []
        for attribute in (75, 76):  # COMPUTE_CAPABILITY_MAJOR and _MINOR
            value = ctypes.c_int()
            cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
            capability.append(value.value)
        cards.append((name.value.decode(), tuple(capability)))
    return 0, cards


def count_shown(gpus='/proc/driver/nvidia/gpus'):
    """Returns how many cards CUDA_VISIBLE_DEVICES, or without it the driver, shows.

    Args:
        gpus: str, where the kernel's driver has a folder for each card.
    """
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        # CUDA looks no further than an entry that is no card.
        return len(list(itertools.takewhile(
            lambda card: card and card[0] != '-', visible.split(','))))
    return len(os.listdir(gpus)) if os.path.isdir(gpus) else 0


def is_permitted():
    """Returns whether this user may open the cards that the kernel shows."""
    nodes = ['/dev/nvidiactl', '/dev/nvidia0']
    return all(os.access(node, os.R_OK | os.W_OK) for node in nodes
               if os.path.exists(node))


def verdict(machine):
    """Says whether TensorFlow 1.15 can use a machine's card.

    Returns:
        Whether it can, a bool; why, part of a sentence; and what to do, a str,
        or None where there is nothing to do.
    """
    cuda = [name for name in machine.missing if name != DRIVER_LIBRARY]
    if machine.driver is None and DRIVER_LIBRARY in machine.missing:
        return False, 'there is no NVIDIA driver', (
            'where there is a card, install its driver, 410.48 or newer')
    if machine.driver and _numbers(machine.driver) < OLDEST_DRIVER:
        return (False, 'the NVIDIA driver is %s, and CUDA 10.0 needs 410.48 or '
                'newer' % machine.driver, 'update the driver')
    if DRIVER_LIBRARY in machine.missing:
        return False, 'the driver\'s %s is not here' % DRIVER_LIBRARY, (
            'in a container, begin it with docker run --gpus all; else install '
            'the driver again')
    if machine.error or not machine.cards:
        return (False, *_no_card(machine))
    name, capability = machine.cards[0]
    card = '%s, compute capability %d.%d' % (name, *capability)
    if capability < OLDEST_CARD:
        return (False, 'the card is too old for TensorFlow 1.15 (%s; 3.5 is the '
                'least)' % card, 'train on the CPU with --device cpu')
    if cuda:
        return (False, 'it could not load ' + ', '.join(cuda),
                'make gpu' if capability <= NEWEST_CARD else
                NEWER)
    if capability > NEWEST_CARD:
        return (True, 'the card is newer than CUDA 10.0 (%s): the first start '
                'compiles for many minutes, and cuBLAS may fail then' % card,
                'if it fails, ' + NEWER)
    return True, 'CUDA 10.0 is at home on this card (%s)' % card, None


def _no_card(machine):
    """Returns why the driver shows no card, and what to do."""
    if machine.visible is not None:
        return ('CUDA_VISIBLE_DEVICES=%s shows it no GPU' % machine.visible,
                'unset CUDA_VISIBLE_DEVICES, or name a card that is there')
    if not is_permitted():
        return ('this user may not open /dev/nvidia*',
                'join the group that may, as a rule video')
    return ('the NVIDIA driver shows it no GPU (cuInit: %d)' % machine.error,
            'see what nvidia-smi says')


def _numbers(version):
    return tuple(map(int, version.split('.')[:2]))


def describe(machine):
    """Returns what was found, as lines."""
    lines = ['driver: %s' % (machine.driver or 'none')]
    lines += ['card: %s, compute capability %d.%d' % (name, *capability)
              for name, capability in machine.cards]
    lines += ['%s: %s' % (name, path or 'not found')
              for name, path in machine.libraries.items()]
    usable, why, what = verdict(machine)
    lines.append('TensorFlow 1.15 %s use a card here: %s' % (
        'can' if usable else 'cannot', why))
    if what:
        lines.append('next: ' + what)
    return lines


def main():
    """Says what was found on this machine; returns 1 if no card can be used."""
    from training.errors import UserError
    from training.packages import import_tensorflow
    try:
        import_tensorflow()
    except UserError as error:
        print('error: %s' % error, file=sys.stderr)
        return 1
    import tensorflow as tf
    machine = look(tf.sysconfig.get_lib())
    print('\n'.join(describe(machine)))
    return 0 if verdict(machine)[0] else 1


if __name__ == '__main__':
    sys.exit(main())
