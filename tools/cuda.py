"""Install CUDA 10.0 and cuDNN 7 for TensorFlow 1.15.

    python tools/cuda.py [ENVIRONMENT]               (default: .venv)
    python tools/cuda.py --cublas 12 [ENVIRONMENT]
    python tools/cuda.py --remove [ENVIRONMENT]

TensorFlow 1.15 loads NVIDIA's libraries of 2018. NVIDIA offers no pip package of them,
but the wheel of CNTK contains them. This program fetches the wheel and copies them into
TensorFlow's own folder, where TensorFlow looks first. CNTK itself is not installed. It
needs no root, no NVIDIA account and no environment variable. It works on 64-bit x86
Linux only.

For a GPU newer than Turing it installs cuBLAS 12 under the name of cuBLAS 10, which
does not know such a GPU. cuBLAS 12 has every function that TensorFlow 1.15 calls. This
was not tested on a GPU.
"""
import argparse
import collections
import fcntl
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from training import gpu  # noqa: E402

# Libraries of one wheel. `platform` is its tag. `download` is the size of the wheel and
# `unpacked` that of the libraries, in MB. `paths` are their paths in the wheel.
Part = collections.namedtuple(
    'Part', 'name requirement platform download unpacked paths')

CUDA_10 = Part(
    'CUDA 10.0 and cuDNN 7', 'cntk-gpu==2.7.post2 --hash=sha256:'
    '6954c67b71aa637eb661df720ec72429b3298de9f14f67bfa7ce89752cfccc0d',
    'manylinux1_x86_64', 523, 466,
    ('cntk/libs/libcudart.so.10.0', 'cntk/libs/libcurand.so.10.0',
     'cntk/libs/libcusparse.so.10.0', 'cntk/libs/libcudnn.so.7'))
CUBLAS_10 = CUDA_10._replace(unpacked=71, paths=('cntk/libs/libcublas.so.10.0',))
# The newest version with code for Volta. Its RPATH leads to its own libcublasLt before
# LD_LIBRARY_PATH does; 12.1 has a RUNPATH and takes another version's from there.
CUBLAS_12 = Part(
    'cuBLAS 12', 'nvidia-cublas-cu12==12.9.3.13 --hash=sha256:'
    'd7d51055f161b317c7105ddaae90e71eda059026074ffef93cf7cde2886bfe72',
    'manylinux_2_27_x86_64', 581, 854,
    ('nvidia/cublas/lib/libcublasLt.so.12', 'nvidia/cublas/lib/libcublas.so.12'))

# The parts and the links to install, by the version of cuBLAS. The wheels lack cuFFT
# and cuSOLVER. TensorFlow does not start on a GPU without them, but it starts with a
# link to any library. A program that calls cuFFT or cuSOLVER then fails.
PARTS = {'10': (CUDA_10, CUBLAS_10), '12': (CUDA_10, CUBLAS_12)}
LINKS = {'10': {'libcufft.so.10.0': 'libcudart.so.10.0',
                'libcusolver.so.10.0': 'libcudart.so.10.0'}}
LINKS['12'] = dict(LINKS['10'], **{'libcublas.so.10.0': 'libcublas.so.12'})
NAMES = {'10': 'CUDA 10.0', '12': 'CUDA 10.0 with cuBLAS 12'}

UNTRIED = ('note: %s is newer than CUDA 10.0, so it needs cuBLAS 12. TensorFlow 1.15 '
           "with cuBLAS 12 was not tested on a GPU. %sOthers use NVIDIA's build of "
           'TensorFlow 1.15: see docs/gpu.md')
LICENCES = ('https://docs.nvidia.com/cuda/archive/10.0/eula/, '
            'https://docs.nvidia.com/cuda/archive/12.9.0/eula/ and '
            'https://docs.nvidia.com/deeplearning/cudnn/sla/')
LOCK = '.cuda.lock'


def find_tensorflow(environment):
    """Return the folder of TensorFlow's libraries in an environment of venv or conda.

    Exit with an error if it has no TensorFlow 1.15.
    """
    found = glob.glob(os.path.join(
        glob.escape(environment), 'lib', 'python3.*', 'site-packages',
        'tensorflow_core', 'libtensorflow_framework.so.1'))
    if not found:
        sys.exit('error: %s has no TensorFlow 1.15: name another environment, or run '
                 'pip install -r requirements.txt in this one' % environment)
    return os.path.dirname(found[0])


def lock(folder):
    """Wait until no other process holds the lock of a folder. Return its open file."""
    file = open(os.path.join(folder, LOCK), 'a')
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('Waiting for another process that changes %s.' % folder, file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # some network file systems have no locks
        pass
    return file


def missing(folder, cublas):
    """Return the parts whose libraries are not all in TensorFlow's folder."""
    def exists(path):
        path = os.path.join(folder, os.path.basename(path))
        return os.path.isfile(path) and not os.path.islink(path)

    return [part for part in PARTS[cublas] if not all(map(exists, part.paths))]


def is_installed(folder, cublas):
    """Return whether all libraries and links are in TensorFlow's folder."""
    return not missing(folder, cublas) and all(
        os.path.islink(os.path.join(folder, name)) for name in LINKS[cublas])


def install(environment, folder, cublas):
    """Fetch the missing libraries and put them into TensorFlow's folder.

    Nothing changes there until all of them are unpacked. Exit with an error if the
    disk is too small or pip fails. Raise OSError if a file cannot be written.
    """
    parts = missing(folder, cublas)
    wheels = {part.requirement: part for part in parts}
    libc = os.confstr('CS_GNU_LIBC_VERSION')  # such as glibc 2.36
    if (any(part.platform == CUBLAS_12.platform for part in parts)
            and [int(number) for number in re.findall(r'\d+', libc)] < [2, 27]):
        sys.exit('error: cuBLAS 12 needs glibc 2.27, and this is %s: use NVIDIA\'s '
                 'build of TensorFlow 1.15 (docs/gpu.md)' % libc)
    unpacked = sum(part.unpacked for part in parts)
    if parts:  # else only a link changes
        print("Fetching NVIDIA's %s into %s, %d MB unpacked. Licences: %s" % (
            ' and '.join('%s (%d MB)' % (part.name, part.download)
                         for part in wheels.values()),
            environment, unpacked, LICENCES), file=sys.stderr)
    needed = unpacked + sum(part.download for part in wheels.values())
    free = shutil.disk_usage(folder).free // 10 ** 6
    if free < needed:
        sys.exit('error: %s needs %d MB, and %d MB are free: make room and run again'
                 % (folder, needed, free))
    with tempfile.TemporaryDirectory('.part', 'cuda-', folder) as staging:
        for part in wheels.values():
            fetch(environment, staging, part)
        paths = [path for part in parts for path in part.paths]
        for wheel in glob.glob(os.path.join(glob.escape(staging), '*.whl')):
            with zipfile.ZipFile(wheel) as archive:
                for path in set(paths) & set(archive.namelist()):
                    unpack(archive, path, staging)
        for name, target in LINKS[cublas].items():
            os.symlink(target, os.path.join(staging, name))
        for name in [*map(os.path.basename, paths), *LINKS[cublas]]:
            os.replace(os.path.join(staging, name), os.path.join(folder, name))


def fetch(environment, staging, part):
    """Download the wheel of a part into a folder with the environment's pip."""
    path = os.path.join(staging, 'requirements.txt')
    with open(path, 'w') as file:
        file.write(part.requirement)
    done = subprocess.run(
        [os.path.join(environment, 'bin', 'python'), '-m', 'pip', 'download',
         '--no-cache-dir', '--disable-pip-version-check', '--no-deps',
         '--only-binary=:all:', '--python-version=3.6', '--implementation=cp',
         '--abi=cp36m', '--platform=' + part.platform, '--require-hashes',
         '--requirement', path, '--dest', staging],
        stdout=sys.stderr, env=dict(os.environ, TMPDIR=staging))
    if done.returncode:
        sys.exit('error: pip could not fetch the libraries: see its message above, '
                 'and run again')


def unpack(archive, path, folder):
    """Copy one file out of a wheel."""
    target = os.path.join(folder, os.path.basename(path))
    with archive.open(path) as source, open(target, 'wb') as file:
        shutil.copyfileobj(source, file, 1 << 20)


def remove(folder):
    """Delete the libraries and links from TensorFlow's folder."""
    names = {os.path.basename(path) for parts in PARTS.values() for part in parts
             for path in part.paths}
    for name in names.union(LINKS['12']):
        if os.path.lexists(os.path.join(folder, name)):
            os.remove(os.path.join(folder, name))


def run(folder, machine, flags):
    """Do what the flags ask for. Return a sentence that tells the result."""
    for abandoned in glob.glob(os.path.join(glob.escape(folder), 'cuda-*.part')):
        shutil.rmtree(abandoned)
    if flags.remove:
        remove(folder)
        return 'CUDA 10.0 was removed from %s' % flags.environment
    chosen = gpu.once_installed(machine).gpu
    newer = chosen is not None and gpu.is_newer(machine, machine.gpus[chosen])
    if newer:
        print(UNTRIED % (machine.gpus[chosen].name, '' if machine.cuda >= (12, 0) else
                         'It needs the driver %s or newer. ' % gpu.DRIVER_12),
              file=sys.stderr)
    old_driver = machine.cuda and machine.cuda < (12, 0)  # not enough for cuBLAS 12
    wanted = ([flags.cublas] if flags.cublas else ['12'] if newer
              else ['10'] if old_driver else sorted(PARTS))
    for cublas in wanted:
        if is_installed(folder, cublas):
            return '%s is in %s already' % (NAMES[cublas], flags.environment)
    if not flags.cublas and not newer and all(
            machine.libraries[name] for name in gpu.CUDA_LIBRARIES):
        return 'CUDA 10.0 is on this machine already, and TensorFlow uses it'
    install(flags.environment, folder, wanted[0])
    return '%s is in %s' % (NAMES[wanted[0]], flags.environment)


def main():
    """Read the flags, install or remove. Return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('environment', metavar='ENVIRONMENT', nargs='?',
                        default='.venv')
    parser.add_argument('--remove', action='store_true', help='delete the libraries')
    parser.add_argument('--if-gpu', action='store_true',
                        help='do nothing without a GPU that TensorFlow can use')
    parser.add_argument('--cublas', choices=sorted(PARTS),
                        help='default: 12 for a GPU newer than Turing; else the '
                        'installed one, or 10')
    flags = parser.parse_args()
    folder = find_tensorflow(flags.environment)
    # An exception, so that the temporary folder is deleted.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        machine = gpu.look(folder)
        if flags.if_gpu and gpu.once_installed(machine).state == 'unusable':
            return 0
        with lock(folder):
            print(run(folder, machine, flags), file=sys.stderr)
    except OSError as error:
        sys.exit('error: cannot write into %s (%s): fix that and run again'
                 % (folder, error.strerror or error))
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
