"""Can this machine's processor run TensorFlow 1.15?

    python -m training.cpu

prints an error and exits with 1 if it cannot. Any Python 3 runs this, without packages.
"""
import ctypes
import mmap
import platform
import sys

# push rbx; mov eax, 1; cpuid; mov eax, ecx; pop rbx; ret
CPUID_1_ECX = bytes.fromhex('53 b801000000 0fa2 89c8 5b c3')
AVX = 1 << 28  # in ecx (Intel 64 manual, volume 2A, CPUID)


def problem():
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


if __name__ == '__main__':
    if problem():
        sys.exit('error: ' + problem())
