"""Puts CUDA 10.0 and cuDNN 7 into an environment with TensorFlow 1.15.

    python requirements/cuda.py [ENVIRONMENT]            (default: .venv)
    python requirements/cuda.py --remove [ENVIRONMENT]

TensorFlow 1.15 loads NVIDIA's libraries of 2018, which NVIDIA offers no package
of. The wheel of CNTK, which nothing here imports, carries them. They go beside
TensorFlow's own libraries, where it looks first, so that no environment variable
is needed. Only Linux on 64-bit x86. It needs no package, no root and no account.
"""
import argparse
import ctypes
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile

# The wheel: what pip asks for, with its sha256, and how large it is.
WHEEL = ('cntk-gpu==2.7.post2 --hash=sha256:'
         '6954c67b71aa637eb661df720ec72429b3298de9f14f67bfa7ce89752cfccc0d')
WHEEL_MB = 523

# NVIDIA's own, CUDA 10.0 and cuDNN 7.3.1, as they lie in the wheel's cntk/libs.
LIBRARIES = ('libcudart.so.10.0', 'libcublas.so.10.0', 'libcurand.so.10.0',
             'libcusparse.so.10.0', 'libcudnn.so.7')
LIBRARIES_MB = 537

# TensorFlow does not start on a GPU without these, which are in no wheel. A link
# to another library lets it start; what calls cuFFT or cuSOLVER then fails.
LINKS = ('libcufft.so.10.0', 'libcusolver.so.10.0')

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


def on_loader(libraries=LIBRARIES + LINKS):
    """Returns whether the system's loader finds all of these libraries."""
    for library in libraries:
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
    return True


def is_installed(folder):
    """Returns whether all libraries are in TensorFlow's folder."""
    return all(os.path.exists(os.path.join(folder, name))
               for name in LIBRARIES + LINKS)


def install(environment, folder, wheel=WHEEL):
    """Fetches the wheel and puts its libraries into a folder, all or none.

    Args:
        environment: str, whose pip fetches it.
        folder: str, as `find_tensorflow` gives it.
        wheel: str, what pip is asked for.

    Raises:
        CudaError: it can't be fetched or written.
    """
    clear(folder)
    free = shutil.disk_usage(folder).free // 10 ** 6
    if free < WHEEL_MB + LIBRARIES_MB:
        raise CudaError('%d MB are needed in %s, and %d are free: make room and '
                        'run again' % (WHEEL_MB + LIBRARIES_MB, folder, free))
    staging = tempfile.mkdtemp(prefix='cuda-', suffix='.part', dir=folder)
    try:
        with zipfile.ZipFile(_fetch(environment, staging, wheel)) as archive:
            for name in LIBRARIES:
                with archive.open('cntk/libs/' + name) as source, open(
                        os.path.join(staging, name), 'wb') as target:
                    shutil.copyfileobj(source, target, 1 << 20)
        for name in LINKS:
            os.symlink(LIBRARIES[0], os.path.join(staging, name))
        # LINKS last: with them, `is_installed`.
        for name in LIBRARIES + LINKS:
            os.replace(os.path.join(staging, name), os.path.join(folder, name))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        raise CudaError('cannot write into %s (%s): mend that and run again'
                        % (folder, getattr(error, 'strerror', None) or error))
    finally:
        shutil.rmtree(staging)


def _fetch(environment, staging, wheel):
    """Has pip fetch the wheel; returns its path."""
    requirement = os.path.join(staging, 'requirements.txt')
    with open(requirement, 'w') as f:
        f.write(wheel + '\n')
    done = subprocess.run(
        [os.path.join(environment, 'bin', 'python'), '-m', 'pip', 'download',
         '--no-cache-dir', '--disable-pip-version-check', '--no-deps',
         '--only-binary=:all:', '--python-version=3.6', '--implementation=cp',
         '--abi=cp36m', '--platform=manylinux1_x86_64', '--require-hashes',
         '--requirement', requirement, '--dest', staging],
        stdout=sys.stderr, env=dict(os.environ, TMPDIR=staging))
    wheels = glob.glob(os.path.join(glob.escape(staging), '*.whl'))
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
    for name in LIBRARIES + LINKS:
        if os.path.lexists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('environment', metavar='ENVIRONMENT', nargs='?',
                        default='.venv')
    parser.add_argument('--remove', action='store_true',
                        help='take the libraries out again')
    flags = parser.parse_args()
    # So that what was begun is cleared away.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        folder = find_tensorflow(flags.environment)
        if flags.remove:
            remove(folder)
            print('CUDA 10.0 is out of ' + flags.environment, file=sys.stderr)
        elif is_installed(folder):
            print('CUDA 10.0 is in %s already' % flags.environment,
                  file=sys.stderr)
        elif on_loader():
            print('CUDA 10.0 is on this machine already, and is used as it is',
                  file=sys.stderr)
        else:
            print("Fetching NVIDIA's CUDA 10.0 and cuDNN 7 in a wheel of %d MB; "
                  '%d MB of it go into %s, and the wheel is not kept. NVIDIA\'s '
                  'licences: %s' % (WHEEL_MB, LIBRARIES_MB, flags.environment,
                                    LICENCES), file=sys.stderr)
            install(flags.environment, folder)
            print('CUDA 10.0 is in ' + flags.environment, file=sys.stderr)
    except CudaError as error:
        print('error: %s' % error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
