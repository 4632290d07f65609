"""What TensorFlow 1.15 needs of this machine: a processor with AVX, and its packages.

    python -m training.environment

prints an error and exits with 1 if the processor cannot run TensorFlow. Any Python 3
runs this, without packages.
"""
import ctypes
import mmap
import os
import platform
import sys

from training.errors import UserError

# push rbx; mov eax, 1; cpuid; mov eax, ecx; pop rbx; ret
CPUID_1_ECX = bytes.fromhex('53 b801000000 0fa2 89c8 5b c3')
AVX = 1 << 28  # in ecx (Intel 64 manual, volume 2A, CPUID)


def processor_problem():
    """Return a str that says what the processor lacks, None if it lacks nothing."""
    if platform.machine() not in ('x86_64', 'AMD64'):
        return ('TensorFlow 1.15 runs on 64-bit x86 processors only, and this is %s: '
                'use another machine' % platform.machine())
    try:
        # Ask the processor: an emulator may show another one in /proc/cpuinfo.
        page = mmap.mmap(-1, mmap.PAGESIZE,
                         prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(CPUID_1_ECX)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        if ctypes.CFUNCTYPE(ctypes.c_uint32)(address)() & AVX:
            return None
    except OSError:  # the system forbids to run code that was written to memory
        return None
    return ('TensorFlow 1.15 needs a processor with AVX, and this one has none: use '
            'another machine, such as a free one in Google Colab')


def import_tensorflow():
    """Import TensorFlow and silence its warnings, but not its errors.

    Raises:
        UserError: it cannot be imported, it is not 1.15, or the processor is too old.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')  # errors of the C++ side
    # What the driver compiles for a GPU newer than CUDA 10.0 is more than its cache
    # keeps by default. This is the most that it can keep (CUDA C++ Programming Guide).
    os.environ.setdefault('CUDA_CACHE_MAXSIZE', str(2 ** 32))
    if processor_problem():  # the import would end the process
        raise UserError(processor_problem())
    try:
        import tensorflow as tf
    except Exception as error:  # a protobuf that is too new raises a TypeError
        found = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
    else:
        found = 'this is ' + tf.__version__
    if not found.startswith('this is 1.15.'):
        raise UserError(
            'TensorFlow 1.15 is needed (%s): in a Python 3.7, pip install -r '
            'requirements.txt, or use make train' % found)
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)


if __name__ == '__main__':
    if processor_problem():
        sys.exit('error: ' + processor_problem())
