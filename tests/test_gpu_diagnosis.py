"""The diagnosis of a GPU, with a stand-in for the driver: it runs without a GPU."""
import ctypes
import ctypes.util
import os
import shutil

import pytest

from training import gpu

ALL = dict.fromkeys(gpu.CUDA_LIBRARIES, '/somewhere')
NO_DRIVER = dict(ALL, **{'libcuda.so.1': None})
NONE = dict.fromkeys(gpu.CUDA_LIBRARIES)
ONLY_DRIVER = dict(NONE, **{'libcuda.so.1': '/somewhere'})
T4, H100, K20, K10 = (('Tesla T4', (7, 5)), ('NVIDIA H100', (9, 0)),
                      ('Tesla K20', (3, 5)), ('Tesla K10', (3, 0)))
CUDA_MISSING = ('it could not load libcudart.so.10.0, libcublas.so.10.0, '
                'libcufft.so.10.0, libcurand.so.10.0, libcusolver.so.10.0, '
                'libcusparse.so.10.0, libcudnn.so.7')
TOO_OLD = 'the NVIDIA driver is %s, and CUDA 10.0 needs 410.48 or newer'
SUPPORTED = 'CUDA 10.0 supports this GPU (%s)'
NEWER = ("try make gpu CUBLAS=12, which was not tested on a GPU, or use NVIDIA's "
         'container (docs/gpu.md)')


def machine(driver='535.104.05', libraries=ALL, error=0, gpus=(T4,), visible=None):
    return gpu.Machine(driver, libraries, error, list(gpus), visible)


@pytest.mark.parametrize('found, usable, why, advice', [
    (machine(), True, SUPPORTED % 'Tesla T4, compute capability 7.5', None),
    (machine(gpus=[K20]), True, SUPPORTED % 'Tesla K20, compute capability 3.5', None),
    (machine('410.48'), True, SUPPORTED % 'Tesla T4, compute capability 7.5', None),
    (machine(gpus=[H100]), True, 'the GPU is newer than CUDA 10.0 (NVIDIA H100, '
     'compute capability 9.0): the first start compiles for many minutes, and '
     'cuBLAS may fail then', 'if it fails, ' + NEWER),
    (machine(None, NONE, gpus=[]), False, 'there is no NVIDIA driver',
     'if there is a GPU, install its driver, 410.48 or newer'),
    (machine('390.157', ONLY_DRIVER), False, TOO_OLD % '390.157', 'update the driver'),
    (machine('410.47'), False, TOO_OLD % '410.47', 'update the driver'),
    (machine(libraries=NO_DRIVER, gpus=[]), False, "the driver's libcuda.so.1 is "
     'missing', 'start a container with docker run --gpus all; outside a container, '
     'install the driver again'),
    *[(machine(error=100, gpus=[], visible=visible), False, 'CUDA_VISIBLE_DEVICES=%s '
       'shows no GPU' % visible, 'unset CUDA_VISIBLE_DEVICES, or give it the number of '
       'a GPU') for visible in ('7', '')],
    (machine(error=999, gpus=[]), False, 'the NVIDIA driver shows no GPU (cuInit: '
     '999)', 'see what nvidia-smi says'),
    (machine(gpus=[K10]), False, 'the GPU is too old for TensorFlow 1.15 (Tesla K10, '
     'compute capability 3.0; the lowest is 3.5)',
     'train on the CPU with --device cpu'),
    (machine(libraries=ONLY_DRIVER), False, CUDA_MISSING, 'make gpu'),
    (machine(libraries=ONLY_DRIVER, gpus=[H100]), False, CUDA_MISSING, NEWER)])
def test_verdict_says_why_and_what_to_do(found, usable, why, advice):
    assert gpu.verdict(found) == (usable, why, advice)
    last = gpu.describe(found)[-2 if advice else -1:]
    assert last == ['TensorFlow 1.15 %s use a GPU here: %s' % (
        'can' if usable else 'cannot', why)] + (['next: ' + advice] if advice else [])


def test_verdict_without_permission(monkeypatch):
    monkeypatch.setattr(os.path, 'exists', lambda path: True)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert gpu.verdict(machine(error=100, gpus=[])) == (
        False, 'this user may not open /dev/nvidia*',
        'join the group that may, usually video')


class Driver(object):
    """Stands in for libcuda.so.1."""

    def __init__(self, error, gpus):
        self.error, self.gpus = error, gpus

    def cuInit(self, flags):
        return self.error

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.gpus)

    def cuDeviceGetName(self, name, size, device):
        name.value = self.gpus[device][0].encode()

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.gpus[device][1][{75: 0, 76: 1}[attribute]]


def test_ask_driver_returns_names_and_capabilities():
    assert gpu.ask_driver(Driver(0, [T4, H100])) == (0, [T4, H100])
    assert gpu.ask_driver(Driver(100, [])) == (100, [])


@pytest.mark.parametrize('text, version', [
    ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  410.48  Thu Sep  6 '
     '06:36:33 CDT 2018\nGCC version:  gcc version 7.3.0\n', '410.48'),
    ('NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  '
     'Release Build  (dvs-builder@U16)\n', '535.104.05'),
    ('nothing of that kind', None)])
def test_driver_version_is_read(text, version, tmp_path):
    (tmp_path / 'version').write_text(text)
    assert gpu.driver_version(str(tmp_path / 'version')) == version
    assert gpu.driver_version(str(tmp_path / 'missing')) is None


def test_libraries_beside_tensorflow_come_first(tmp_path):
    library = ctypes.util.find_library('z') or 'libz.so.1'
    assert gpu.locate(library, str(tmp_path)) == library
    assert gpu.locate('libcudart.so.0', str(tmp_path)) is None
    with open('/proc/self/maps') as maps:
        path = [line.split()[-1] for line in maps if '/libz.so' in line][0]
    shutil.copy(path, str(tmp_path / library))
    assert gpu.locate(library, str(tmp_path)) == str(tmp_path / library)


def test_count_visible(tmp_path, monkeypatch):
    for number in (4, 5, 6):
        (tmp_path / ('0000:00:0%d.0' % number)).mkdir()
    for visible, count in (('-1', 0), ('', 0), ('3', 1), ('0,2', 2), ('0,-1,2', 1)):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        assert gpu.count_visible(str(tmp_path)) == count
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    assert gpu.count_visible(str(tmp_path)) == 3
    assert gpu.count_visible(str(tmp_path / 'missing')) == 0
