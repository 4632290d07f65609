"""What is said of cards. No card was at hand: what a driver says is stood in for."""
import ctypes
import ctypes.util
import os
import shutil

import pytest

from training import cards

ALL = dict.fromkeys(cards.CUDA_LIBRARIES, '/somewhere')
NO_DRIVER = dict(ALL, **{'libcuda.so.1': None})
NO_CUDA = dict.fromkeys(cards.CUDA_LIBRARIES)
ONLY_DRIVER = dict(NO_CUDA, **{'libcuda.so.1': '/somewhere'})
T4, H100, K20, K10 = (('Tesla T4', (7, 5)), ('NVIDIA H100', (9, 0)),
                      ('Tesla K20', (3, 5)), ('Tesla K10', (3, 0)))
MISSING = ('it could not load libcudart.so.10.0, libcublas.so.10.0, '
           'libcufft.so.10.0, libcurand.so.10.0, libcusolver.so.10.0, '
           'libcusparse.so.10.0, libcudnn.so.7')
NEWER = ("try make gpu CUBLAS=12, which was not tried on a card, or use NVIDIA's "
         'container (docs/gpu.md)')


def machine(driver='535.104.05', libraries=ALL, error=0, found=(T4,), visible=None):
    return cards.Machine(driver, libraries, error, list(found), visible)


@pytest.mark.parametrize('of, usable, why, what', [
    (machine(), True, 'CUDA 10.0 is at home on this card (Tesla T4, compute '
     'capability 7.5)', None),
    (machine(found=[K20]), True, 'CUDA 10.0 is at home on this card (Tesla K20, '
     'compute capability 3.5)', None),
    (machine('410.48'), True, 'CUDA 10.0 is at home on this card (Tesla T4, '
             'compute capability 7.5)', None),
    (machine(found=[H100]), True, 'the card is newer than CUDA 10.0 (NVIDIA H100, '
     'compute capability 9.0): the first start compiles for many minutes, and '
     'cuBLAS may fail then', 'if it fails, ' + NEWER),
    (machine(None, NO_CUDA, found=[]), False, 'there is no NVIDIA driver',
     'where there is a card, install its driver, 410.48 or newer'),
    (machine('390.157', ONLY_DRIVER), False, 'the NVIDIA driver is 390.157, and '
     'CUDA 10.0 needs 410.48 or newer', 'update the driver'),
    (machine('410.47'), False, 'the NVIDIA driver is 410.47, and CUDA 10.0 needs '
     '410.48 or newer', 'update the driver'),
    (machine(libraries=NO_DRIVER, found=[]), False, "the driver's libcuda.so.1 is "
     'not here', 'in a container, begin it with docker run --gpus all; else '
     'install the driver again'),
    (machine(error=100, found=[], visible='7'), False, 'CUDA_VISIBLE_DEVICES=7 '
     'shows it no GPU', 'unset CUDA_VISIBLE_DEVICES, or name a card that is there'),
    (machine(error=999, found=[]), False, 'the NVIDIA driver shows it no GPU '
     '(cuInit: 999)', 'see what nvidia-smi says'),
    (machine(found=[K10]), False, 'the card is too old for TensorFlow 1.15 (Tesla '
     'K10, compute capability 3.0; 3.5 is the least)',
     'train on the CPU with --device cpu'),
    (machine(libraries=ONLY_DRIVER), False, MISSING, 'make gpu'),
    (machine(libraries=ONLY_DRIVER, found=[H100]), False, MISSING,
     NEWER)])
def test_verdicts(of, usable, why, what):
    assert cards.verdict(of) == (usable, why, what)
    last = cards.describe(of)[-2 if what else -1:]
    assert last == ['TensorFlow 1.15 %s use a card here: %s' % (
        'can' if usable else 'cannot', why)] + (['next: ' + what] if what else [])


def test_no_permission(monkeypatch):
    monkeypatch.setattr(os.path, 'exists', lambda path: True)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert cards.verdict(machine(error=100, found=[])) == (
        False, 'this user may not open /dev/nvidia*',
        'join the group that may, as a rule video')


class Driver(object):
    """Stands in for libcuda.so.1."""

    def __init__(self, error, found):
        self.error, self.found = error, found

    def cuInit(self, flags):
        return self.error

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.found)

    def cuDeviceGetName(self, name, size, device):
        name.value = self.found[device][0].encode()

    def cuDeviceGetAttribute(self, value, attribute, device):
        value._obj.value = self.found[device][1][{75: 0, 76: 1}[attribute]]


def test_the_driver_is_asked():
    assert cards.ask_driver(Driver(0, [T4, H100])) == (0, [T4, H100])
    assert cards.ask_driver(Driver(100, [])) == (100, [])


@pytest.mark.parametrize('text, version', [
    ('NVRM version: NVIDIA UNIX x86_64 Kernel Module  410.48  Thu Sep  6 '
     '06:36:33 CDT 2018\nGCC version:  gcc version 7.3.0\n', '410.48'),
    ('NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  '
     'Release Build  (dvs-builder@U16)\n', '535.104.05'),
    ('nothing of that kind', None)])
def test_the_version_of_the_driver(text, version, tmp_path):
    (tmp_path / 'version').write_text(text)
    assert cards.driver_version(str(tmp_path / 'version')) == version
    assert cards.driver_version(str(tmp_path / 'gone')) is None


def test_libraries_are_looked_for_beside_tensorflow_first(tmp_path):
    library = ctypes.util.find_library('z') or 'libz.so.1'
    assert cards.locate(library, str(tmp_path)) == library
    assert cards.locate('libcudart.so.0', str(tmp_path)) is None
    with open('/proc/self/maps') as maps:
        path = [line.split()[-1] for line in maps if '/libz.so' in line][0]
    shutil.copy(path, str(tmp_path / library))
    assert cards.locate(library, str(tmp_path)) == str(tmp_path / library)


def test_cards_are_counted(tmp_path, monkeypatch):
    for card in ('0000:00:04.0', '0000:00:05.0', '0000:00:06.0'):
        (tmp_path / card).mkdir()
    for visible, count in (('-1', 0), ('', 0), ('3', 1), ('0,2', 2), ('0,-1,2', 1)):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        assert cards.count_shown(str(tmp_path)) == count
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    assert cards.count_shown(str(tmp_path)) == 3
    assert cards.count_shown(str(tmp_path / 'none')) == 0
