"""requirements/cuda.py, on a wheel of our own that stands in for CNTK's."""
import ctypes
import glob
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest
import tensorflow as tf
from conftest import ROOT, full_disk

from training import cards

sys.path.insert(0, os.path.join(ROOT, 'requirements'))
import cuda  # noqa: E402

SCRIPT = os.path.join(ROOT, 'requirements', 'cuda.py')
NAMES = cuda.LIBRARIES + cuda.LINKS


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment with TensorFlow's folder, and a pip that finds a wheel.

    The wheel is small, and its libraries are one of this machine's.
    """
    folder = tmp_path / 'env/lib/python3.7/site-packages/tensorflow_core'
    folder.mkdir(parents=True)
    (folder / 'libtensorflow_framework.so.1').write_text('')
    (tmp_path / 'env/bin').mkdir()
    python = tmp_path / 'env/bin/python'
    python.write_text('#!/bin/sh\nexec %s "$@"\n' % sys.executable)
    python.chmod(0o755)
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    path = wheels / 'cntk_gpu-2.7.post2-cp36-cp36m-manylinux1_x86_64.whl'
    with zipfile.ZipFile(str(path), 'w') as wheel:
        for name in cuda.LIBRARIES:
            wheel.write(glob.glob('/lib/x86_64-linux-gnu/libutil*.so*')[0],
                        'cntk/libs/' + name)
        wheel.writestr('cntk_gpu-2.7.post2.dist-info/METADATA',
                       'Metadata-Version: 2.0\nName: cntk-gpu\n'
                       'Version: 2.7.post2\n')
        wheel.writestr('cntk_gpu-2.7.post2.dist-info/WHEEL',
                       'Wheel-Version: 1.0\n')
        wheel.writestr('cntk_gpu-2.7.post2.dist-info/RECORD', '')
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(wheels))
    monkeypatch.setattr(cuda, 'WHEEL_MB', 1)
    monkeypatch.setattr(cuda, 'LIBRARIES_MB', 1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return (str(tmp_path / 'env'), folder,
            'cntk-gpu==2.7.post2 --hash=sha256:' + digest)


def contents(folder):
    return sorted(path.name for path in folder.iterdir())


def test_libraries_are_put_beside_tensorflows_and_taken_out(environment):
    env, folder, wheel = environment
    assert cuda.find_tensorflow(env) == str(folder)
    assert not cuda.is_installed(str(folder))
    (folder / 'cuda-old.part').mkdir()  # left by one that was killed
    cuda.install(env, str(folder), wheel)
    assert cuda.is_installed(str(folder))
    assert contents(folder) == sorted(NAMES + ('libtensorflow_framework.so.1',))
    for name in NAMES:
        ctypes.CDLL(str(folder / name))
    cuda.remove(str(folder))
    assert contents(folder) == ['libtensorflow_framework.so.1']


def test_a_wheel_with_another_sha256_is_refused(environment, capfd):
    env, folder, wheel = environment
    with pytest.raises(cuda.CudaError, match='pip could not fetch'):
        cuda.install(env, str(folder), cuda.WHEEL)
    assert contents(folder) == ['libtensorflow_framework.so.1']
    assert 'DO NOT MATCH THE HASHES' in capfd.readouterr().err


def test_no_room(environment, monkeypatch):
    env, folder, wheel = environment
    monkeypatch.setattr(cuda, 'LIBRARIES_MB', 10 ** 9)
    with pytest.raises(cuda.CudaError, match=(
            r'1000000001 MB are needed in \S+, and \d+ are free: make room and '
            'run again')):
        cuda.install(env, str(folder), wheel)
    assert contents(folder) == ['libtensorflow_framework.so.1']


def test_a_write_that_fails_leaves_nothing(environment, monkeypatch):
    env, folder, wheel = environment

    def full(source, target, size):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shutil, 'copyfileobj', full)
    with pytest.raises(cuda.CudaError, match='No space left on device'):
        cuda.install(env, str(folder), wheel)
    assert contents(folder) == ['libtensorflow_framework.so.1']


@pytest.mark.parametrize('number, left', [(signal.SIGTERM, 1),
                                          (signal.SIGKILL, 2)])
def test_stopped_while_it_fetches(number, left, environment):
    env, folder, _ = environment
    with open(os.path.join(env, 'bin', 'python'), 'w') as python:
        python.write('#!/bin/sh\nexec sleep 60\n')
    running = subprocess.Popen([sys.executable, SCRIPT, env])
    while not list(folder.glob('cuda-*.part/*')):
        time.sleep(0.05)
    running.send_signal(number)
    running.wait(30)
    assert len(contents(folder)) == left
    cuda.clear(str(folder))
    assert contents(folder) == ['libtensorflow_framework.so.1']


def test_what_it_says(environment, tmp_path):
    env, folder, wheel = environment

    def said(*args):
        done = subprocess.run([sys.executable, SCRIPT, *args],
                              stderr=subprocess.PIPE, universal_newlines=True)
        return done.returncode, done.stderr

    assert said(str(tmp_path)) == (
        1, 'error: %s is no environment with TensorFlow 1.15: name one, or make it '
        'with pip install -r requirements.txt\n' % tmp_path)
    cuda.install(env, str(folder), wheel)
    assert said(env) == (0, 'CUDA 10.0 is in %s already\n' % env)
    assert said('--remove', env) == (0, 'CUDA 10.0 is out of %s\n' % env)
    assert contents(folder) == ['libtensorflow_framework.so.1']


def test_a_disk_that_is_full(environment):
    env, folder, _ = environment
    done = subprocess.run(
        [*full_disk(str(folder), '64k', False), 'sh', '-c',
         'touch $1/libtensorflow_framework.so.1; shift; exec "$@"', 'sh',
         str(folder), sys.executable, SCRIPT, env],
        stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: 1060 MB are needed in %s, and 0 are free: make room and run again'
        % folder)


@pytest.mark.skipif(not cuda.is_installed(tf.sysconfig.get_lib()),
                    reason='make gpu puts CUDA 10.0 into .venv')
def test_tensorflow_misses_nothing_but_the_driver():
    found = cards.look(tf.sysconfig.get_lib())
    assert found.missing in ([], ['libcuda.so.1'])
    for name in NAMES:
        path = os.path.join(tf.sysconfig.get_lib(), name)
        ctypes.CDLL(path)
        with open('/proc/self/maps') as maps:
            assert os.path.realpath(path) in maps.read()
