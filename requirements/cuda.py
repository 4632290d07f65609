"""Puts CUDA 10.0 and cuDNN 7 into an environment with TensorFlow 1.15.

    python requirements/cuda.py [ENVIRONMENT]            (default: .venv)
    python requirements/cuda.py --cublas 12 [ENVIRONMENT]
    python requirements/cuda.py --remove [ENVIRONMENT]

TensorFlow 1.15 loads NVIDIA's libraries of 2018, which NVIDIA offers no package
of. The wheel of CNTK, which nothing here imports, carries them. They go beside
TensorFlow's own libraries, where it looks first, so that no environment variable
is needed. Only Linux on 64-bit x86. It needs no package, no root and no account.

--cublas 12 puts a cuBLAS in that knows newer cards, under the old one's name. It
has every function that TensorFlow 1.15 asks for. It was not tried on a card.
"""
import argparse
import collections
import contextlib
import ctypes
import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile

# What pip asks for, with its sha256; its size and that of the libraries that are
# taken, in MB; and these, by the paths in the wheel.
Wheel = collections.namedtuple('Wheel', ['requirement', 'size', 'unpacked',
                                         'libraries'])

# NVIDIA's own CUDA 10.0 and cuDNN 7.3.1.
CUDA_10 = Wheel(
    'cntk-gpu==2.7.post2 --hash=sha256:'
    '6954c67b71aa637eb661df720ec72429b3298de9f14f67bfa7ce89752cfccc0d', 523, 466,
    ('cntk/libs/libcudart.so.10.0', 'cntk/libs/libcurand.so.10.0',
     'cntk/libs/libcusparse.so.10.0', 'cntk/libs/libcudnn.so.7'))
CUBLAS_10 = CUDA_10._replace(unpacked=71,
                             libraries=('cntk/libs/libcublas.so.10.0',))
CUBLAS_12 = Wheel(
    'nvidia-cublas-cu12==12.1.3.1 --hash=sha256:'
    'ee53ccca76a6fc08fb9701aa95b6ceb242cdaab118c3bb152af4e579af792728', 411, 623,
    ('nvidia/cublas/lib/libcublasLt.so.12', 'nvidia/cublas/lib/libcublas.so.12'))
CUBLAS = {'10': CUBLAS_10, '12': CUBLAS_12}

# TensorFlow does not start on a GPU without the first two, which are in no wheel. A
# link to another library lets it start; what calls cuFFT or cuSOLVER then fails.
LINKS = {'10': {'libcufft.so.10.0': 'libcudart.so.10.0',
                'libcusolver.so.10.0': 'libcudart.so.10.0'}}
LINKS['12'] = dict(LINKS['10'], **{'libcublas.so.10.0': 'libcublas.so.12'})

# Held by the process that changes TensorFlow's folder.
LOCK = '.cuda.lock'

# What TensorFlow asks the loader for.
NAMES = ('libcudart.so.10.0', 'libcublas.so.10.0', 'libcufft.so.10.0',
         'libcurand.so.10.0', 'libcusolver.so.10.0', 'libcusparse.so.10.0',
         'libcudnn.so.7')

LICENCES = ('https://docs.nvidia.com/cuda/archive/10.0/eula/ and '
            'https://docs.nvidia.com/deeplearning/cudnn/sla/')


class CudaError(Exception):
    """The text is one line that says what to do."""


def find_tensorflow(environment):
    """Returns the folder of TensorFlow's own libraries in an environment.

    Args:
        environment: str, what `python -m venv` or conda made.

    Raises:
        CudaError: there is no TensorFlow 1.15 for GPUs in it.
    """
    found = glob.glob(os.path.join(
        glob.escape(environment), 'lib', 'python3.*', 'site-packages',
        'tensorflow_core', 'libtensorflow_framework.so.1'))
    if not found:
        raise CudaError(
            '%s is no environment with TensorFlow 1.15: name one, or make it with '
            'pip install -r requirements.txt' % environment)
    return os.path.dirname(found[0])


def loads(library):
    """Returns whether the system's loader finds a library."""
    try:
        ctypes.CDLL(library)
        return True
    except OSError:
        return False


def on_loader():
    """Returns whether it finds all that TensorFlow asks for."""
    return all(map(loads, NAMES))


def missing(folder, cublas):
    """Returns the wheels whose libraries are not in TensorFlow's folder.

    Args:
        folder: str, as `find_tensorflow` gives it.
        cublas: a key of `CUBLAS`.
    """
    def is_there(path):
        path = os.path.join(folder, os.path.basename(path))
        return os.path.isfile(path) and not os.path.islink(path)

    return [wheel for wheel in (CUDA_10, CUBLAS[cublas])
            if not all(map(is_there, wheel.libraries))]


def is_installed(folder, cublas):
    """Returns whether all libraries and links are in TensorFlow's folder."""
    return not missing(folder, cublas) and all(
        os.path.islink(os.path.join(folder, name)) for name in LINKS[cublas])


def install(environment, folder, cublas='10'):
    """Fetches what is missing and puts it into a folder, all or nothing.

    Args:
        environment: str, whose pip fetches it.
        folder: str, as `find_tensorflow` gives it.
        cublas: a key of `CUBLAS`.

    Raises:
        CudaError: it can't be fetched or written.
    """
    clear(folder)
    wheels = missing(folder, cublas)
    needed = (sum({wheel.requirement: wheel.size for wheel in wheels}.values())
              + sum(wheel.unpacked for wheel in wheels))
    free = shutil.disk_usage(folder).free // 10 ** 6
    if free < needed:
        raise CudaError('%d MB are needed in %s, and %d are free: make room and '
                        'run again' % (needed, folder, free))
    staging = tempfile.mkdtemp(prefix='cuda-', suffix='.part', dir=folder)
    try:
        _fill(environment, staging, wheels)
        for name, target in LINKS[cublas].items():
            os.symlink(target, os.path.join(staging, name))
        # Links last: with them, `is_installed`.
        for name in sorted(os.listdir(staging), key=lambda name: os.path.islink(
                os.path.join(staging, name))):
            os.replace(os.path.join(staging, name), os.path.join(folder, name))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise CudaError('cannot write into %s (%s): mend that and run again'
                        % (folder, getattr(error, 'strerror', None) or error))
    finally:
        shutil.rmtree(staging)


def _fill(environment, staging, wheels):
    """Fetches wheels and leaves nothing but their libraries in a folder."""
    fetched = os.path.join(staging, 'wheels')
    for requirement in sorted({wheel.requirement for wheel in wheels}):
        os.mkdir(fetched)
        with zipfile.ZipFile(_fetch(environment, fetched, requirement)) as archive:
            for wheel in wheels:
                for path in wheel.libraries * (wheel.requirement == requirement):
                    with archive.open(path) as source, open(os.path.join(
                            staging, os.path.basename(path)), 'wb') as target:
                        shutil.copyfileobj(source, target, 1 << 20)
        shutil.rmtree(fetched)


def _fetch(environment, folder, requirement):
    """Has pip fetch a wheel into a folder; returns its path."""
    path = os.path.join(folder, 'requirements.txt')
    with open(path, 'w') as f:
        f.write(requirement + '\n')
    done = subprocess.run(
        [os.path.join(environment, 'bin', 'python'), '-m', 'pip', 'download',
         '--no-cache-dir', '--disable-pip-version-check', '--no-deps',
         '--only-binary=:all:', '--python-version=3.6', '--implementation=cp',
         '--abi=cp36m', '--platform=manylinux1_x86_64', '--require-hashes',
         '--requirement', path, '--dest', folder],
        stdout=sys.stderr, env=dict(os.environ, TMPDIR=folder))
    wheels = glob.glob(os.path.join(glob.escape(folder), '*.whl'))
    if done.returncode or not wheels:
        raise CudaError('pip could not fetch the libraries: see what it says '
                        'above, and run again')
    return wheels[0]


def clear(folder):
    """Removes what an installation that was killed has left."""
    for left in glob.glob(os.path.join(glob.escape(folder), 'cuda-*.part')):
        shutil.rmtree(left)


def remove(folder):
    """Takes the libraries out again."""
    clear(folder)
    names = set(NAMES) | {
        os.path.basename(path) for wheel in (CUDA_10, CUBLAS_10, CUBLAS_12)
        for path in wheel.libraries}
    for name in names:
        if os.path.lexists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('environment', metavar='ENVIRONMENT', nargs='?',
                        default='.venv')
    parser.add_argument('--remove', action='store_true',
                        help='take the libraries out again')
    parser.add_argument('--if-driver', action='store_true',
                        help="do nothing where NVIDIA's driver does not load")
    parser.add_argument('--cublas', choices=sorted(CUBLAS),
                        help='default: the one that is there, or 10')
    flags = parser.parse_args()
    # So that what was begun is cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if not flags.if_driver or loads('libcuda.so.1'):
            print(run(flags), file=sys.stderr)
    except CudaError as error:
        print('error: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def locked(folder):
    """Waits until no other process of this program changes a folder."""
    try:
        lock = open(os.path.join(folder, LOCK), 'a')
    except OSError as error:
        raise CudaError('cannot write into %s (%s): mend that and run again'
                        % (folder, error.strerror))
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Waiting for another process that changes %s.' % folder,
                  file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system that has no locks
            pass
        yield


def run(flags):
    """Does what the flags say; returns what to say of it."""
    folder = find_tensorflow(flags.environment)
    with locked(folder):
        return _run(flags, folder)


def _run(flags, folder):
    if flags.remove:
        remove(folder)
        return 'CUDA 10.0 is out of ' + flags.environment
    for cublas in [flags.cublas] if flags.cublas else sorted(CUBLAS):
        if is_installed(folder, cublas):
            return '%s is in %s already' % (_what(cublas), flags.environment)
    if flags.cublas is None and on_loader():
        return 'CUDA 10.0 is on this machine already, and is used as it is'
    cublas = flags.cublas or '10'
    wheels = missing(folder, cublas)
    print('Fetching %s of NVIDIA, %s; %d MB go into %s, and the wheels are not kept. '
          "NVIDIA's licences: %s" % (
              ' and '.join(sorted({'CUDA 10.0 and cuDNN 7' if wheel is not CUBLAS_12
                                   else 'cuBLAS 12' for wheel in wheels})),
              ' and '.join('%d MB' % size for size in sorted(
                  {wheel.size for wheel in wheels})),
              sum(wheel.unpacked for wheel in wheels), flags.environment, LICENCES),
          file=sys.stderr)
    install(flags.environment, folder, cublas)
    return '%s is in %s' % (_what(cublas), flags.environment)


def _what(cublas):
    return 'CUDA 10.0' + ', with cuBLAS 12,' * (cublas == '12')


if __name__ == '__main__':
    sys.exit(main())
