"""Measure how long NVIDIA's compiler takes for the PTX of a library, without a GPU.

The driver compiles it at the first start on a GPU that is newer than the library.
docs/gpu.md says what to install before.

    python bench/first_start.py sm_86 LIBRARY...
"""
import collections
import glob
import os
import resource
import struct
import subprocess
import sys
import tempfile

import lz4.block

# The format of fat binaries is not documented. These values were read off CUDA 10.0's.
FAT_BINARY = struct.pack('<IHH', 0xBA55ED50, 1, 16)
PTX = 1
COMPRESSED = 0x2000


def read_library(path):
    """Return {capability: list of (compiler options, PTX)} of a library."""
    found = collections.defaultdict(list)
    with open(path, 'rb') as f:
        data = f.read()
    start = data.find(FAT_BINARY)
    while start >= 0:
        at = start + 16
        end = at + struct.unpack_from('<Q', data, start + 8)[0]
        while at < end:
            kind, _, head, payload = struct.unpack_from('<HHIQ', data, at)
            if kind == PTX:
                capability, = struct.unpack_from('<I', data, at + 28)
                found[capability].append(
                    read_entry(data[at:at + head + payload], head))
            at += head + payload
        start = data.find(FAT_BINARY, end)
    return found


def read_entry(entry, head):
    """Return the compiler options and the PTX of an entry; head: size of its header."""
    packed_size, options_at = struct.unpack_from('<II', entry, 16)
    flags, _, size = struct.unpack_from('<QQQ', entry, 40)
    ptx, options = entry[head:], b''
    if flags & COMPRESSED:
        ptx = lz4.block.decompress(ptx[:packed_size], uncompressed_size=size)
    if options_at + 8 <= head:
        start, length = struct.unpack_from('<II', entry, options_at)
        options = entry[start:start + length].rstrip(b'\0')
    return options.decode().split(), ptx.rstrip(b'\0')


def compile_entry(ptxas, arch, options, ptx, folder):
    """Compile PTX; return the bytes of machine code, or 0 if it fails."""
    source, code = (os.path.join(folder, name) for name in ('a.ptx', 'a.cubin'))
    with open(source, 'wb') as f:
        f.write(ptx)
    done = subprocess.run(
        [ptxas, '--disable-warnings', '-arch=' + arch, *options, source, '-o', code])
    return 0 if done.returncode else os.path.getsize(code)


def child_seconds():
    """Return the seconds of one core that finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(arch, *libraries):
    """Compile the newest PTX of each library, as a driver does; print the totals."""
    ptxas, = glob.glob(os.path.join(
        sys.prefix, 'lib/python*/site-packages/nvidia/cuda_nvcc/bin/ptxas'))
    for path in libraries:
        found, before = read_library(path), child_seconds()
        with tempfile.TemporaryDirectory() as folder:
            sizes = [compile_entry(ptxas, arch, *entry, folder)
                     for entry in found[max(found)]]
        print('%s: %d PTX files, %d compiled for %s, %.0f s of one core, %.0f MB of '
              'machine code' % (
                  os.path.basename(path), len(sizes), len(list(filter(None, sizes))),
                  arch, child_seconds() - before, sum(sizes) / 1e6))


if __name__ == '__main__':
    main(*sys.argv[1:])
