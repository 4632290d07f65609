"""tools/cuda.py with small wheels in place of NVIDIA's, and what make gpu installed."""
import ctypes
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import pytest
from conftest import LIMIT, ROOT

from training import gpu

sys.path.insert(0, os.path.join(ROOT, 'tools'))
import cuda  # noqa: E402

SCRIPT = os.path.join(ROOT, 'tools', 'cuda.py')
FRAMEWORK = 'libtensorflow_framework.so.1'
# The folder of the TensorFlow that runs the tests.
TENSORFLOW = importlib.util.find_spec('tensorflow_core').submodule_search_locations[0]


def make_wheel(folder, tag, parts):
    """Write a wheel whose libraries contain their own names. Return its requirement."""
    package, version = parts[0].requirement.split(' ')[0].split('==')
    name = '%s-%s' % (package.replace('-', '_'), version)
    path = folder / ('%s-%s-%s.whl' % (name, tag, parts[0].platform))
    with zipfile.ZipFile(str(path), 'w') as wheel:
        for part in parts:
            for member in part.paths:
                wheel.writestr(member, os.path.basename(member))
        wheel.writestr(name + '.dist-info/METADATA', 'Metadata-Version: 2.0\n'
                       'Name: %s\nVersion: %s\n' % (package, version))
        wheel.writestr(name + '.dist-info/WHEEL', 'Wheel-Version: 1.0\n')
        wheel.writestr(name + '.dist-info/RECORD', '')
    return '%s==%s --hash=sha256:%s' % (
        package, version, hashlib.sha256(path.read_bytes()).hexdigest())


def machine(driver=True, cuda=False, capability=(7, 5), newest=(12, 2)):
    """Return a `gpu.Machine`, by default one with a T4 and without CUDA 10.0."""
    path = 'here' if driver else None
    a_gpu = gpu.Gpu('A GPU', capability, 80, (0, ''), (8000, 8192))
    return gpu.Machine(
        None, newest if driver else None,
        dict(dict.fromkeys(gpu.CUDA_LIBRARIES, 'here' if cuda else None),
             **{gpu.DRIVER_LIBRARY: path}), (0, ''), [a_gpu] * driver, None)


@pytest.fixture
def env(tmp_path, monkeypatch):
    """The path of an environment with TensorFlow and a pip that finds small wheels."""
    folder = tmp_path / 'env/lib/python3.7/site-packages/tensorflow_core'
    folder.mkdir(parents=True)
    (folder / FRAMEWORK).write_text('')
    python = tmp_path / 'env/bin/python'
    python.parent.mkdir()
    python.write_text('#!/bin/sh\nexec %s "$@"\n' % sys.executable)
    python.chmod(0o755)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(tmp_path))
    cntk = make_wheel(tmp_path, 'cp36-cp36m', cuda.PARTS['10'])
    cublas = make_wheel(tmp_path, 'py3-none', [cuda.CUBLAS_12])
    monkeypatch.setattr(cuda, 'PARTS', {
        key: [part._replace(requirement=cublas if part is cuda.CUBLAS_12 else cntk,
                            download=100, unpacked=10) for part in parts]
        for key, parts in cuda.PARTS.items()})
    monkeypatch.setattr(gpu, 'look', lambda folder: machine())
    return str(tmp_path / 'env')


@pytest.fixture
def folder(env):
    """The folder of TensorFlow's libraries in the environment."""
    return pathlib.Path(cuda.find_tensorflow(env))


@pytest.fixture
def call(monkeypatch, capfd):
    """Run the program in this process. Return its status and the lines of stderr."""
    def call(*args):
        monkeypatch.setattr(sys, 'argv', ['cuda.py', *args])
        try:
            status = cuda.main()
        except SystemExit as error:
            status = error.code
        return status, capfd.readouterr().err.splitlines()

    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)


def contents(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != cuda.LOCK)


def test_libraries_are_installed_beside_tensorflows_and_removed(env, folder, call):
    status, lines = call(env)
    assert (status, lines[0], lines[-1]) == (
        0, "Fetching NVIDIA's CUDA 10.0 and cuDNN 7 (100 MB) into %s, 20 MB unpacked. "
        'Licences: %s' % (env, cuda.LICENCES), 'CUDA 10.0 is in ' + env)
    assert contents(folder) == sorted((*gpu.CUDA_LIBRARIES, FRAMEWORK))
    for name in gpu.CUDA_LIBRARIES:
        assert (folder / name).read_text() == cuda.LINKS['10'].get(name, name)
    assert call(env) == (0, ['CUDA 10.0 is in %s already' % env])
    assert call('--remove', env) == (0, ['CUDA 10.0 was removed from ' + env])
    assert contents(folder) == [FRAMEWORK]


def test_cublas_12_replaces_cublas_10_and_is_replaced_by_it(env, folder, call):
    for path in cuda.CUDA_10.paths:
        (folder / os.path.basename(path)).write_text('there before')
    status, lines = call('--cublas', '12', env)
    assert (status, lines[0], lines[-1]) == (
        0, "Fetching NVIDIA's cuBLAS 12 (100 MB) into %s, 10 MB unpacked. Licences: %s"
        % (env, cuda.LICENCES), 'CUDA 10.0 with cuBLAS 12 is in ' + env)
    assert (folder / 'libcublas.so.10.0').read_text() == 'libcublas.so.12'
    assert (folder / 'libcublasLt.so.12').exists()
    for flags in (['--cublas', '12'], []):  # no flag keeps the installed one
        assert call(*flags, env) == (
            0, ['CUDA 10.0 with cuBLAS 12 is in %s already' % env])
    status, lines = call('--cublas', '10', env)
    assert (status, lines[-1]) == (0, 'CUDA 10.0 is in ' + env)
    assert (folder / 'libcublas.so.10.0').read_text() == 'libcublas.so.10.0'
    assert (folder / 'libcudnn.so.7').read_text() == 'there before'
    assert call('--remove', env)[0] == 0
    assert contents(folder) == [FRAMEWORK]


def test_a_wheel_with_another_sha256_is_refused(env, folder, call, tmp_path):
    with next(tmp_path.glob('cntk*')).open('ab') as wheel:
        wheel.write(b'more')
    status, lines = call(env)
    assert status == ('error: pip could not fetch the libraries: see its message '
                      'above, and run again')
    assert [line for line in lines if 'DO NOT MATCH THE HASHES' in line]
    assert contents(folder) == [FRAMEWORK]


def test_a_disk_that_fills_up_gets_an_error_and_keeps_nothing(
        env, folder, call, monkeypatch):
    def fill(source, target, size):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shutil, 'copyfileobj', fill)
    assert call(env)[0] == (
        'error: cannot write into %s (No space left on device): fix that and run '
        'again' % folder)
    assert contents(folder) == [FRAMEWORK]


def test_a_disk_that_is_too_small_gets_an_error_before_the_download(
        env, folder, call, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage',
                        lambda path: SimpleNamespace(free=219999999))
    status, lines = call('--cublas', '12', env)
    assert status == ('error: %s needs 220 MB, and 219 MB are free: make room and '
                      'run again' % folder)
    assert len(lines) == 1


@pytest.mark.parametrize('glibc, fails', [('2.17', True), ('2.27', False)])
def test_cublas_12_needs_glibc_2_27(glibc, fails, env, call, monkeypatch):
    monkeypatch.setattr(os, 'confstr', lambda name: 'glibc ' + glibc)
    status, _ = call('--cublas', '12', env)
    assert status == (
        'error: cuBLAS 12 needs glibc 2.27, and this is glibc 2.17: use NVIDIA\'s '
        'build of TensorFlow 1.15 (docs/gpu.md)' if fails else 0)
    assert call('--cublas', '10', env)[0] == 0


@pytest.mark.parametrize('number, left', [(signal.SIGTERM, 1), (signal.SIGKILL, 2)])
def test_a_stopped_download_is_deleted_at_once_or_by_the_next_run(
        number, left, env, folder, call):
    with open(os.path.join(env, 'bin', 'python'), 'w') as python:
        python.write('#!/bin/sh\nexec sleep 60\n')
    running = subprocess.Popen([sys.executable, SCRIPT, '--cublas', '10', env])
    while not list(folder.glob('cuda-*.part/requirements.txt')):
        time.sleep(0.02)
    running.send_signal(number)
    running.wait(LIMIT)
    assert len(contents(folder)) == left
    assert call('--remove', env)[0] == 0
    assert contents(folder) == [FRAMEWORK]


def test_two_at_once_take_turns(env, folder):
    with cuda.lock(str(folder)):
        waiting = subprocess.Popen([sys.executable, SCRIPT, '--remove', env],
                                   stderr=subprocess.PIPE, universal_newlines=True)
        assert waiting.stderr.readline() == (
            'Waiting for another process that changes %s.\n' % folder)
        assert waiting.poll() is None
    assert waiting.communicate(timeout=LIMIT)[1] == (
        'CUDA 10.0 was removed from %s\n' % env)


def test_an_environment_without_tensorflow_gets_an_error(tmp_path, call):
    assert call(str(tmp_path))[0] == (
        'error: %s has no TensorFlow 1.15: name another environment, or run pip '
        'install -r requirements.txt in this one' % tmp_path)


@pytest.mark.parametrize('found, flags, says', [
    (machine(driver=False), ['--if-gpu'], []),
    (machine(capability=(3, 0)), ['--if-gpu'], []),
    (machine(cuda=True), ['--if-gpu'],
     ['CUDA 10.0 is on this machine already, and TensorFlow uses it']),
    (machine(cuda=True), [],
     ['CUDA 10.0 is on this machine already, and TensorFlow uses it'])])
def test_nothing_is_fetched_without_a_gpu_or_if_the_machine_has_cuda(
        found, flags, says, env, folder, call, monkeypatch):
    monkeypatch.setattr(gpu, 'look', lambda folder: found)
    assert call(*flags, env) == (0, says)
    assert contents(folder) == [FRAMEWORK]


NOTE = ('note: A GPU is newer than CUDA 10.0, so it needs cuBLAS 12. TensorFlow 1.15 '
        'with cuBLAS 12 was not tested on a GPU. %sOthers use NVIDIA\'s build of '
        'TensorFlow 1.15: see docs/gpu.md')


@pytest.mark.parametrize('newest, driver', [
    ((12, 2), ''), ((11, 4), 'It needs the driver 525.60.13 or newer. ')])
def test_a_newer_gpu_gets_cublas_12_in_place_of_10(
        newest, driver, env, folder, call, monkeypatch):
    assert call('--if-gpu', env)[0] == 0  # CUDA 10.0, for the T4 that was there before
    monkeypatch.setattr(gpu, 'look', lambda folder: machine(
        cuda=True, capability=(8, 6), newest=newest))
    status, lines = call('--if-gpu', env)
    assert (status, lines[0], lines[-1]) == (
        0, NOTE % driver, 'CUDA 10.0 with cuBLAS 12 is in ' + env)
    assert (folder / 'libcublas.so.10.0').read_text() == 'libcublas.so.12'
    assert call(env) == (
        0, [NOTE % driver, 'CUDA 10.0 with cuBLAS 12 is in %s already' % env])
    assert call('--cublas', '10', env)[1][-1] == 'CUDA 10.0 is in ' + env


def test_an_old_driver_gets_cublas_10_in_place_of_12(env, folder, call, monkeypatch):
    assert call('--cublas', '12', env)[0] == 0
    assert call(env)[1] == ['CUDA 10.0 with cuBLAS 12 is in %s already' % env]
    monkeypatch.setattr(gpu, 'look', lambda folder: machine(newest=(10, 0)))
    assert call(env)[1][-1] == 'CUDA 10.0 is in ' + env
    assert (folder / 'libcublas.so.10.0').read_text() == 'libcublas.so.10.0'


needs_cuda = pytest.mark.skipif(
    not any(cuda.is_installed(TENSORFLOW, cublas) for cublas in cuda.PARTS),
    reason='make gpu puts CUDA 10.0 into .venv')


@needs_cuda
def test_tensorflow_finds_all_libraries_but_the_drivers():
    found = dict(gpu.look(TENSORFLOW).libraries)
    del found['libcuda.so.1']
    assert found == {name: os.path.join(TENSORFLOW, name)
                     for name in gpu.CUDA_LIBRARIES}


@needs_cuda
def test_cublas_takes_its_own_cublaslt(tmp_path):
    """A cluster's module puts another version into LD_LIBRARY_PATH."""
    if not cuda.is_installed(TENSORFLOW, '12'):
        pytest.skip('cuBLAS 12 is not installed: CUBLAS=12')
    shutil.copy(os.path.join(TENSORFLOW, 'libcublasLt.so.12'), str(tmp_path))
    code = ('import ctypes; ctypes.CDLL(%r); print(open("/proc/self/maps").read())'
            % os.path.join(TENSORFLOW, 'libcublas.so.10.0'))
    maps = subprocess.check_output([sys.executable, '-c', code], env=dict(
        os.environ, LD_LIBRARY_PATH=str(tmp_path)), universal_newlines=True)
    assert set(re.findall(r'/\S*libcublasLt\S*', maps)) == {
        os.path.join(TENSORFLOW, 'libcublasLt.so.12')}


@needs_cuda
def test_cublas_has_every_function_that_tensorflow_calls():
    with open(os.path.join(TENSORFLOW, FRAMEWORK), 'rb') as f:
        names = set(re.findall(rb'\0(cublas[A-Z]\w*)(?=\0)', f.read()))
    assert len(names) == 415
    cublas = ctypes.CDLL(os.path.join(TENSORFLOW, 'libcublas.so.10.0'))
    assert not [name for name in names if not hasattr(cublas, name.decode())]
