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

from training import gpu

FOUND = dict.fromkeys((*gpu.CUDA_LIBRARIES, gpu.DRIVER_LIBRARY), '/somewhere')
NO_DRIVER = dict(FOUND, **{'libcuda.so.1': None})
ONLY_DRIVER = dict(dict.fromkeys(gpu.CUDA_LIBRARIES), **{'libcuda.so.1': '/somewhere'})
T4, RTX_3090, H100 = (('Tesla T4', (7, 5)), ('NVIDIA GeForce RTX 3090', (8, 6)),
                      ('NVIDIA H100', (9, 0)))
TX2, GTX_750, K10 = ('TX2', (6, 2)), ('GTX 750', (5, 0)), ('Tesla K10', (3, 0))
SUPPORTED = 'TensorFlow supports this GPU (%s)'
NEWER = 'the GPU is newer than CUDA 10.0 (%s)'
RESTART = 'see what nvidia-smi says; if that fails too, restart the machine'
OTHERS = 'stop them (nvidia-smi lists them)'


def machine(**found):
    usual = dict(driver='535.104.05', cuda=(12, 2), libraries=FOUND, error=(0, ''),
                 gpus=[T4], context=(0, ''), memory=(15000, 15360), visible=None)
    return gpu.Machine(**dict(usual, **found))


@pytest.mark.parametrize('found, state, why, advice', [
    (dict(), 'usable', SUPPORTED % 'Tesla T4, compute capability 7.5', None),
    (dict(gpus=[TX2]), 'usable', SUPPORTED % 'TX2, compute capability 6.2', None),
    (dict(gpus=[H100]), 'usable', NEWER % 'NVIDIA H100, compute capability 9.0',
     "if it fails, use NVIDIA's build of TensorFlow 1.15 (docs/gpu.md)"),
    (dict(gpus=[RTX_3090], cuda=(11, 4)), 'usable',
     NEWER % 'NVIDIA GeForce RTX 3090, compute capability 8.6',
     'update the driver to 525.60.13 or newer, which cuBLAS 12 needs'),
    # NVIDIA's build of TensorFlow has CUDA 12 and code for newer GPUs.
    (dict(gpus=[H100], libraries={'libcuda.so.1': 'here'}), 'usable',
     SUPPORTED % 'NVIDIA H100, compute capability 9.0', None),
    # It has PTX for 3.7, but no machine code for 5.0.
    (dict(gpus=[GTX_750]), 'usable', 'TensorFlow has no machine code for this GPU '
     '(GTX 750, compute capability 5.0)',
     'wait at the first start, while the driver compiles TensorFlow for it'),
    (dict(gpus=[K10]), 'unusable', 'the GPU is too old for TensorFlow 1.15 (Tesla K10, '
     'compute capability 3.0; the lowest is 3.5)', None),
    (dict(driver=None, cuda=None, libraries=NO_DRIVER, gpus=[]), 'unusable',
     'there is no NVIDIA driver',
     'if there is a GPU, install its driver, 410.48 or newer'),
    (dict(cuda=None, libraries=NO_DRIVER, gpus=[]), 'unusable',
     "the driver's libcuda.so.1 is missing", 'start a container with docker run --gpus '
     'all; outside a container, install the driver again'),
    (dict(cuda=(9, 2)), 'unusable', 'the NVIDIA driver supports CUDA 9.2, and '
     'TensorFlow 1.15 needs 10.0', 'update the driver to 410.48 or newer'),
    *[(dict(error=(100, 'CUDA_ERROR_NO_DEVICE'), gpus=[], visible=visible), 'unusable',
       'CUDA_VISIBLE_DEVICES=%s shows no GPU' % visible,
       'unset CUDA_VISIBLE_DEVICES, or give it the number of a GPU')
      for visible in ('7', '')],
    (dict(error=(803, 'CUDA_ERROR_SYSTEM_DRIVER_MISMATCH'), gpus=[], visible='0'),
     'unusable',
     'the NVIDIA driver shows no GPU (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)', RESTART),
    (dict(libraries=ONLY_DRIVER), 'unusable', 'it could not load libcudart.so.10.0, '
     'libcublas.so.10.0, libcufft.so.10.0, libcurand.so.10.0, libcusolver.so.10.0, '
     'libcusparse.so.10.0, libcudnn.so.7', 'make gpu'),
    (dict(context=(2, 'CUDA_ERROR_OUT_OF_MEMORY'), memory=None), 'busy',
     'other programs use the memory of the GPU (Tesla T4, 0 MiB free)', OTHERS),
    (dict(memory=(399, 15360)), 'busy',
     'other programs use the memory of the GPU (Tesla T4, 399 MiB free)', OTHERS),
    *[(dict(context=(number, ''), memory=None), 'busy', 'another program uses the GPU '
       'alone (Tesla T4, exclusive mode)', 'stop it (nvidia-smi lists it)')
      for number in (46, 101)],
    (dict(context=(999, 'CUDA_ERROR_UNKNOWN'), memory=None), 'busy',
     'the GPU does not start (Tesla T4, CUDA_ERROR_UNKNOWN)', RESTART)])
def test_verdict_says_why_and_what_to_do(found, state, why, advice):
    found = machine(**found)
    assert gpu.verdict(found) == (state, why, advice)
    last = gpu.describe(found)[-2 if advice else -1:]
    assert last == ['TensorFlow 1.15 %s use a GPU here: %s' % (
        'cannot' if state != 'usable' else 'may' if advice else 'can', why)] + (
            ['next: ' + advice] if advice else [])


def test_verdict_without_permission(monkeypatch):
    monkeypatch.setattr(os.path, 'exists', lambda path: True)
    monkeypatch.setattr(os, 'access', lambda path, mode: False)
    assert gpu.verdict(machine(error=(100, 'CUDA_ERROR_NO_DEVICE'), gpus=[])) == (
        'unusable', 'this user may not open /dev/nvidia*',
        'join the group that may, usually video')


@pytest.mark.parametrize('settings, found', [
    ({}, dict(cuda=(10, 0), gpus=[('Null CUDA device', (7, 0))], memory=(7892, 8192),
              context=(0, 'CUDA_SUCCESS'), error=(0, 'CUDA_SUCCESS'))),
    ({'NULL_CUDA_CC': '8.6', 'NULL_CUDA_GPUS': '2', 'NULL_CUDA_DRIVER': '12020',
      'NULL_CUDA_NAME': 'A'}, dict(cuda=(12, 2), gpus=[('A', (8, 6))] * 2)),
    ({'NULL_CUDA_GPUS': '2', 'CUDA_VISIBLE_DEVICES': '1'},
     dict(gpus=[('Null CUDA device', (7, 0))], visible='1')),
    ({'CUDA_VISIBLE_DEVICES': '-1'},
     dict(error=(100, 'CUDA_ERROR_NO_DEVICE'), gpus=[], visible='-1')),
    ({'NULL_CUDA_USED_MIB': '8000'},
     dict(context=(2, 'CUDA_ERROR_OUT_OF_MEMORY'), memory=None)),
    ({'NULL_CUDA_FAIL': 'context:46'},
     dict(context=(46, 'CUDA_ERROR_DEVICE_UNAVAILABLE'), memory=None))])
def test_driver_is_asked(settings, found, null_gpu, monkeypatch):
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    for name, value in dict(null_gpu, **settings).items():
        monkeypatch.setenv(name, value)
    answer = gpu.look('/nowhere')
    assert None not in answer.libraries.values()
    assert {name: getattr(answer, name) for name in found} == found


def test_check_gpu_prints_the_diagnosis(null_gpu):
    done = subprocess.run(
        ['env', '-u', 'CUDA_VISIBLE_DEVICES', sys.executable, '-m', 'training.gpu'],
        cwd=ROOT, env=dict(os.environ, **null_gpu, NULL_CUDA_DRIVER='11040'),
        stdout=subprocess.PIPE, universal_newlines=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[1:4] == ['CUDA of the driver: 11.4',
                          'GPU: Null CUDA device, compute capability 7.0',
                          'memory of the first GPU: 7892 of 8192 MiB free']
    assert [line.split(': ')[0] for line in lines[4:-1]] == [
        *gpu.CUDA_LIBRARIES, gpu.DRIVER_LIBRARY]


@pytest.mark.parametrize('code, said', [
    ('int cuInit(unsigned flags) { return 0; }',
     'undefined symbol: cuDriverGetVersion'),
    ('#include <stdlib.h>\nint cuDriverGetVersion(int *v) { abort(); }', 'status -6')])
def test_a_driver_that_does_not_answer_is_an_error(code, said, null_gpu, tmp_path,
                                                   monkeypatch):
    (tmp_path / 'cuda.c').write_text(code)
    subprocess.run(['cc', '-w', '-shared', '-fPIC', '-o', 'libcuda.so.1', 'cuda.c'],
                   cwd=str(tmp_path), check=True)
    monkeypatch.setenv('LD_LIBRARY_PATH', str(tmp_path))
    with pytest.raises(gpu.UserError) as error:
        gpu.look('/nowhere')
    assert re.match(r'the NVIDIA driver gives no answer \(.*%s\): see what nvidia-smi '
                    'says, or use --device cpu$' % said, str(error.value))


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
    assert gpu.look(str(tmp_path / '\u00e9')).gpus[0][0].startswith('\u00e9' * 40)


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
