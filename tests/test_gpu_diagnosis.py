"""The diagnosis of a GPU: of the null GPU in tests/null_cuda, of made-up machines."""
import ctypes
import ctypes.util
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from tensorflow.python.platform import build_info

from training import gpu

sys.path.insert(0, os.path.join(ROOT, 'tools'))
import check_gpu  # noqa: E402

FOUND = dict.fromkeys((*gpu.CUDA_LIBRARIES, gpu.DRIVER_LIBRARY), '/somewhere')
NO_DRIVER = dict(FOUND, **{'libcuda.so.1': None})
ONLY_DRIVER = dict(dict.fromkeys(gpu.CUDA_LIBRARIES), **{'libcuda.so.1': '/somewhere'})
NO_DEVICE = (100, 'CUDA_ERROR_NO_DEVICE')
OTHERS = 'stop them (nvidia-smi lists them)'
T4_FREE = ' (Tesla T4, compute capability 7.5, 15000 of 15360 MiB free)'


def one(name, *capability, multiprocessors=40, context=(0, ''), free=15000):
    memory = None if context[0] else (free, 15360)
    return gpu.Gpu(name, capability, multiprocessors, context, memory)


def t4(**found):
    return one('Tesla T4', 7, 5, **found)


H100, RTX_3090 = one('NVIDIA H100', 9, 0), one('NVIDIA GeForce RTX 3090', 8, 6)
TX2, GTX_750, K10 = one('TX2', 6, 2), one('GTX 750', 5, 0), one('Tesla K10', 3, 0)
DISPLAY = one('GT 710', 3, 5, multiprocessors=1)
FULL, ALONE = t4(free=399), t4(context=(46, ''))
BROKEN = t4(context=(214, 'CUDA_ERROR_ECC_UNCORRECTABLE'))
NULL = gpu.Gpu('Null CUDA device', (7, 0), 80, (0, 'CUDA_SUCCESS'), (7892, 8192))


def machine(*gpus, **found):
    usual = dict(driver='535.104.05', cuda=(12, 2), libraries=FOUND, error=(0, ''),
                 gpus=list(gpus), visible=None)
    return gpu.Machine(**dict(usual, **found))


def without_gpus(number, name='', **found):
    return machine(error=(number, name), **found)


@pytest.mark.parametrize('found, state, why, advice', [
    (machine(t4()), 'usable', 'TensorFlow supports this GPU' + T4_FREE, None),
    (machine(TX2), 'usable', 'TensorFlow supports this GPU (TX2, compute capability '
     '6.2, 15000 of 15360 MiB free)', None),
    (machine(H100), 'usable', 'the GPU is newer than CUDA 10.0 (NVIDIA H100, compute '
     'capability 9.0, 15000 of 15360 MiB free)',
     "if it fails, use NVIDIA's build of TensorFlow 1.15 (docs/gpu.md)"),
    (machine(RTX_3090, cuda=(11, 4)), 'usable', 'the GPU is newer than CUDA 10.0 '
     '(NVIDIA GeForce RTX 3090, compute capability 8.6, 15000 of 15360 MiB free)',
     'update the driver to 525.60.13 or newer, which cuBLAS 12 needs'),
    # NVIDIA's build of TensorFlow has CUDA 12 and code for newer GPUs.
    (machine(H100, libraries={'libcuda.so.1': 'here'}), 'usable',
     'TensorFlow supports this GPU (NVIDIA H100, compute capability 9.0, 15000 of '
     '15360 MiB free)', None),
    # It has PTX for 3.7, but no machine code for 5.0.
    (machine(GTX_750), 'usable', 'TensorFlow has no machine code for this GPU '
     '(GTX 750, compute capability 5.0, 15000 of 15360 MiB free)',
     'wait at the first start, while the driver compiles TensorFlow for it'),
    (machine(K10), 'unusable', 'the GPU is too old for TensorFlow 1.15, whose lowest '
     'compute capability is 3.5 (Tesla K10, compute capability 3.0, 15000 of 15360 '
     'MiB free)', None),
    (machine(driver=None, cuda=None, libraries=NO_DRIVER), 'unusable',
     'there is no NVIDIA driver',
     'if there is a GPU, install its driver, 410.48 or newer'),
    (machine(cuda=None, libraries=NO_DRIVER), 'unusable',
     "the driver's libcuda.so.1 is missing", 'start a container with docker run --gpus '
     'all; outside a container, install the driver again'),
    (machine(t4(), cuda=(9, 2)), 'unusable', 'the NVIDIA driver supports CUDA 9.2, and '
     'TensorFlow 1.15 needs 10.0', 'update the driver to 410.48 or newer'),
    (machine(t4(), libraries=ONLY_DRIVER), 'unusable', 'it could not load '
     'libcudart.so.10.0, libcublas.so.10.0, libcufft.so.10.0, libcurand.so.10.0, '
     'libcusolver.so.10.0, libcusparse.so.10.0, libcudnn.so.7' + T4_FREE, 'make gpu'),
    (machine(t4(context=(2, 'CUDA_ERROR_OUT_OF_MEMORY'))), 'busy', 'other programs use '
     'the memory of the GPU (Tesla T4, compute capability 7.5)', OTHERS),
    (machine(FULL), 'busy', 'other programs use the memory of the GPU (Tesla T4, '
     'compute capability 7.5, 399 of 15360 MiB free)', OTHERS),
    *[(machine(t4(context=(number, ''))), 'busy', 'another program uses the GPU alone, '
       'in exclusive mode (Tesla T4, compute capability 7.5)',
       'stop it (nvidia-smi lists it)') for number in (46, 101)],
    (machine(BROKEN), 'busy', 'the GPU does not start, CUDA_ERROR_ECC_UNCORRECTABLE '
     '(Tesla T4, compute capability 7.5)', gpu.RESTART),
    # Several GPUs.
    (machine(K10, FULL, ALONE, BROKEN, t4()), 'usable',
     'GPU 4: TensorFlow supports this GPU', None),
    (machine(K10, t4(), libraries=ONLY_DRIVER), 'unusable', 'GPU 0: the GPU is too old '
     'for TensorFlow 1.15, whose lowest compute capability is 3.5; GPU 1: it could not '
     'load ' + ', '.join(gpu.CUDA_LIBRARIES), 'make gpu'),
    (machine(DISPLAY, t4()), 'usable', 'GPU 1: TensorFlow supports this GPU', None),
    (machine(DISPLAY, FULL, t4(free=0), ALONE), 'busy',
     'GPU 0: TensorFlow ignores a small GPU (multiprocessors: 1) beside a larger one '
     '(40); GPU 1, 2: other programs use the memory of the GPU; GPU 3: another '
     'program uses the GPU alone, in exclusive mode', OTHERS),
    (machine(FULL, t4(), visible='GPU-7b,MIG-1f'), 'usable',
     'GPU MIG-1f: TensorFlow supports this GPU', None),
    # A small GPU is used if there is no larger one, or only one that is too old.
    (machine(DISPLAY), 'usable', 'TensorFlow supports this GPU (GT 710, compute '
     'capability 3.5, 15000 of 15360 MiB free)', None),
    (machine(K10, DISPLAY), 'usable', 'GPU 1: TensorFlow supports this GPU', None),
    # cuInit fails.
    *[(without_gpus(*NO_DEVICE, visible=visible), 'unusable',
       'CUDA_VISIBLE_DEVICES=%s shows no GPU' % visible,
       'unset CUDA_VISIBLE_DEVICES, or give it the number of a GPU')
      for visible in ('7', '')],
    (without_gpus(*NO_DEVICE, visible='NoDevFiles'), 'unusable',
     'CUDA_VISIBLE_DEVICES=NoDevFiles shows no GPU',
     'ask SLURM for one with --gres=gpu:1'),
    (without_gpus(*NO_DEVICE), 'unusable',
     'the NVIDIA driver shows no GPU (CUDA_ERROR_NO_DEVICE)',
     'see what nvidia-smi says; the last driver for a GPU of Maxwell, Pascal or Volta '
     'is 580, and for a K80 470 (docs/gpu.md)'),
    *[(without_gpus(number, 'A', visible='0'), 'unusable',
       'the NVIDIA driver shows no GPU (A)', advice) for number, advice in [
           (304, 'load the module nvidia_uvm: sudo nvidia-modprobe -u -c 0'),
           (802, 'start the fabric manager: sudo systemctl start nvidia-fabricmanager'),
           (803, 'restart the machine, as the driver was updated; in a container, take '
            "the image's own libcuda.so.1 out of LD_LIBRARY_PATH"),
           (804, 'take the folder of cuda-compat out of LD_LIBRARY_PATH'),
           (999, 'reload nvidia_uvm, which may fail after the machine slept: sudo '
            'rmmod nvidia_uvm; sudo modprobe nvidia_uvm; if that fails, restart the '
            'machine'),
           (3, gpu.RESTART)]],
    (without_gpus(34, cuda=(0, 0)), 'unusable',
     "libcuda.so.1 is the CUDA toolkit's stub, not the driver",
     'take the folder stubs out of LD_LIBRARY_PATH')])
def test_verdict_says_why_and_what_to_do(found, state, why, advice):
    assert gpu.verdict(found)[:3] == (state, why, advice)
    last = check_gpu.describe(found)[-2 if advice else -1:]
    assert last == ['TensorFlow 1.15 %s use a GPU here: %s' % (
        'cannot' if state != 'usable' else 'may' if advice else 'can', why)] + (
            ['next: ' + advice] if advice else [])


@pytest.mark.parametrize('visible', [None, '0'])
def test_verdict_without_permission(visible, monkeypatch):
    monkeypatch.setattr(os.path, 'exists', lambda path: True)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert gpu.verdict(without_gpus(*NO_DEVICE, visible=visible))[:3] == (
        'unusable', 'this user may not open /dev/nvidia*',
        'join the group that may, usually video')


@pytest.mark.parametrize('version, ours', [
    ('10', True), ('10.0', True), ('10.0.130', True), ('10.1', False), ('100', False),
    ('11.8', False), (None, False)])
def test_cuda_10_has_several_spellings(version, ours, monkeypatch):
    monkeypatch.setattr(build_info, 'cuda_version_number', version, raising=False)
    assert (gpu.tensorflow_folder() is not None) == ours


@pytest.mark.parametrize('settings, found', [
    ({}, dict(cuda=(10, 0), error=(0, 'CUDA_SUCCESS'), gpus=[NULL], visible=None)),
    ({'NULL_CUDA_CC': '8.6,3.0', 'NULL_CUDA_SMS': '80,1', 'NULL_CUDA_GPUS': '3',
      'NULL_CUDA_CONTEXT': '46,0', 'NULL_CUDA_USED_MIB': '0,1000,8000',
      'NULL_CUDA_DRIVER': '12020', 'NULL_CUDA_NAME': 'A'}, dict(cuda=(12, 2), gpus=[
          gpu.Gpu('A', (8, 6), 80, (46, 'CUDA_ERROR_DEVICE_UNAVAILABLE'), None),
          gpu.Gpu('A', (3, 0), 1, (0, 'CUDA_SUCCESS'), (6892, 8192)),
          gpu.Gpu('A', (3, 0), 1, (2, 'CUDA_ERROR_OUT_OF_MEMORY'), None)])),
    ({'NULL_CUDA_GPUS': '2', 'CUDA_VISIBLE_DEVICES': '1'},
     dict(gpus=[NULL], visible='1')),
    ({'CUDA_VISIBLE_DEVICES': '-1'}, dict(error=NO_DEVICE, gpus=[], visible='-1'))])
def test_driver_is_asked_about_all_gpus(settings, found, null_gpu, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    for name, value in dict(null_gpu, **settings).items():
        monkeypatch.setenv(name, value)
    answer = gpu.look('/nowhere')
    assert None not in answer.libraries.values()
    assert {name: getattr(answer, name) for name in found} == found


def test_check_gpu_prints_a_verdict_for_each_gpu(null_gpu):
    done = subprocess.run(
        ['env', '-u', 'CUDA_VISIBLE_DEVICES', sys.executable, 'tools/check_gpu.py'],
        cwd=ROOT, env=dict(os.environ, **null_gpu, NULL_CUDA_DRIVER='11040',
                           NULL_CUDA_GPUS='2', NULL_CUDA_USED_MIB='7800,0'),
        stdout=subprocess.PIPE, universal_newlines=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[1:4] == [
        'CUDA of the driver: 11.4',
        'GPU 0: Null CUDA device, compute capability 7.0, 92 of 8192 MiB free: busy, '
        'other programs use the memory of the GPU',
        'GPU 1: Null CUDA device, compute capability 7.0, 7892 of 8192 MiB free: '
        'usable, TensorFlow supports this GPU']
    assert [line.split(': ')[0] for line in lines[4:-1]] == [
        *gpu.CUDA_LIBRARIES, gpu.DRIVER_LIBRARY]


@pytest.mark.parametrize('code, said, waits', [
    ('int cuInit(unsigned flags) { return 0; }',
     '.*undefined symbol: cuDriverGetVersion', False),
    ('#include <stdlib.h>\nint cuDriverGetVersion(int *v) { abort(); }', 'status -6',
     False),
    ('#include <unistd.h>\nint cuDriverGetVersion(int *v) { for (;;) pause(); }',
     'not in 1 s', True)])
def test_a_driver_that_does_not_answer(code, said, waits, made_up_driver, monkeypatch,
                                       capsys):
    monkeypatch.setenv('LD_LIBRARY_PATH', made_up_driver(code))
    monkeypatch.setattr(gpu, 'PATIENCE', 0.5 if waits else 20)
    monkeypatch.setattr(gpu, 'LIMIT', 1 if waits else 20)
    found = gpu.verdict(gpu.look('/nowhere'))
    assert re.match(r'the NVIDIA driver gives no answer \(%s\)$' % said, found.why)
    assert (found.state, found.advice) == ('unusable', gpu.RESTART)
    assert capsys.readouterr().err == (
        'waiting for the NVIDIA driver, 1 s at most\n' if waits else '')


def test_the_answer_survives_other_output_and_odd_names(
        null_gpu, tmp_path, monkeypatch):
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site/sitecustomize.py').write_text('print("hello")')
    (tmp_path / 'struct.py').write_text('raise ImportError')  # not the one to import
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    for name, value in dict(null_gpu, NULL_CUDA_NAME='\u00e9' * 60, LC_ALL='C',
                            PYTHONIOENCODING='latin-1',
                            PYTHONPATH=str(tmp_path / 'site')).items():
        monkeypatch.setenv(name, value)
    assert gpu.look(str(tmp_path / '\u00e9')).gpus[0].name.startswith('\u00e9' * 40)


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
