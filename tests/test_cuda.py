"""requirements/cuda.py, on a wheel of our own that stands in for CNTK's."""
import ctypes
import glob
import hashlib
import os
import re
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
FRAMEWORK = 'libtensorflow_framework.so.1'


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
    library = glob.glob('/lib/x86_64-linux-gnu/libutil*.so*')[0]
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    hashes = {}
    for of, name, tag in (
            (cuda.CUDA_10.libraries + cuda.CUBLAS_10.libraries,
             'cntk_gpu-2.7.post2', 'cp36-cp36m-manylinux1_x86_64'),
            (cuda.CUBLAS_12.libraries, 'nvidia_cublas_cu12-12.1.3.1',
             'py3-none-manylinux1_x86_64')):
        path = wheels / ('%s-%s.whl' % (name, tag))
        with zipfile.ZipFile(str(path), 'w') as wheel:
            for member in of:
                wheel.write(library, member)
            package, version = name.split('-')
            wheel.writestr(name + '.dist-info/METADATA', 'Metadata-Version: 2.0\n'
                           'Name: %s\nVersion: %s\n' % (package, version))
            wheel.writestr(name + '.dist-info/WHEEL', 'Wheel-Version: 1.0\n')
            wheel.writestr(name + '.dist-info/RECORD', '')
        hashes[package] = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(wheels))

    def small(wheel):
        package = wheel.requirement.split('==')[0].replace('-', '_')
        return wheel._replace(size=1, unpacked=1, requirement=(
            wheel.requirement.split('sha256:')[0] + 'sha256:' + hashes[package]))

    for name in ('CUDA_10', 'CUBLAS_10', 'CUBLAS_12'):
        monkeypatch.setattr(cuda, name, small(getattr(cuda, name)))
    monkeypatch.setattr(cuda, 'CUBLAS', {'10': cuda.CUBLAS_10,
                                         '12': cuda.CUBLAS_12})
    return str(tmp_path / 'env'), folder


def contents(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != cuda.LOCK)


def test_libraries_are_put_beside_tensorflows_and_taken_out(environment):
    env, folder = environment
    assert cuda.find_tensorflow(env) == str(folder)
    assert not cuda.is_installed(str(folder), '10')
    (folder / 'cuda-old.part').mkdir()  # left by one that was killed
    cuda.install(env, str(folder))
    assert cuda.is_installed(str(folder), '10')
    assert contents(folder) == sorted(cuda.NAMES + (FRAMEWORK,))
    for name in cuda.NAMES:
        ctypes.CDLL(str(folder / name))
    cuda.remove(str(folder))
    assert contents(folder) == [FRAMEWORK]


def test_another_cublas_takes_the_name_of_the_old_one_and_back(environment, capfd):
    env, folder = environment
    cuda.install(env, str(folder))
    assert not cuda.is_installed(str(folder), '12')
    capfd.readouterr()
    cuda.install(env, str(folder), '12')
    assert 'cntk' not in capfd.readouterr().err  # only what is missing
    assert cuda.is_installed(str(folder), '12')
    assert not cuda.is_installed(str(folder), '10')
    assert os.readlink(str(folder / 'libcublas.so.10.0')) == 'libcublas.so.12'
    assert (folder / 'libcublasLt.so.12').exists()
    cuda.install(env, str(folder), '10')
    assert cuda.is_installed(str(folder), '10')
    cuda.remove(str(folder))
    assert contents(folder) == [FRAMEWORK]


def test_a_wheel_with_another_sha256_is_refused(environment, monkeypatch, capfd):
    env, folder = environment
    monkeypatch.setattr(cuda, 'CUDA_10', cuda.CUDA_10._replace(
        requirement=cuda.CUDA_10.requirement[:-64] + '0' * 64))
    with pytest.raises(cuda.CudaError, match='pip could not fetch'):
        cuda.install(env, str(folder))
    assert contents(folder) == [FRAMEWORK]
    assert 'DO NOT MATCH THE HASHES' in capfd.readouterr().err


def test_a_write_that_fails_leaves_nothing(environment, monkeypatch):
    env, folder = environment

    def full(source, target, size):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(shutil, 'copyfileobj', full)
    with pytest.raises(cuda.CudaError, match='No space left on device'):
        cuda.install(env, str(folder))
    assert contents(folder) == [FRAMEWORK]


@pytest.mark.parametrize('number, left', [(signal.SIGTERM, 1),
                                          (signal.SIGKILL, 2)])
def test_stopped_while_it_fetches(number, left, environment):
    env, folder = environment
    with open(os.path.join(env, 'bin', 'python'), 'w') as python:
        python.write('#!/bin/sh\nexec sleep 60\n')
    running = subprocess.Popen([sys.executable, SCRIPT, env])
    while not list(folder.glob('cuda-*.part/wheels/*')):
        time.sleep(0.05)
    running.send_signal(number)
    running.wait(30)
    assert len(contents(folder)) == left
    cuda.clear(str(folder))
    assert contents(folder) == [FRAMEWORK]


def test_two_at_once_take_turns(environment):
    env, folder = environment
    command = [sys.executable, SCRIPT, '--remove', env]
    with cuda.locked(str(folder)):
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE,
                                   universal_newlines=True)
        assert waiting.stderr.readline() == (
            'Waiting for another process that changes %s.\n' % folder)
        assert waiting.poll() is None
    assert waiting.communicate(timeout=30)[1] == 'CUDA 10.0 is out of %s\n' % env


def test_what_it_says(environment, tmp_path):
    env, folder = environment

    def said(*args):
        done = subprocess.run([sys.executable, SCRIPT, *args],
                              stderr=subprocess.PIPE, universal_newlines=True)
        return done.returncode, done.stderr

    assert said(str(tmp_path)) == (
        1, 'error: %s is no environment with TensorFlow 1.15: name one, or make it '
        'with pip install -r requirements.txt\n' % tmp_path)
    cuda.install(env, str(folder), '12')
    for args in (['--cublas', '12'], []):  # what is there stays
        assert said(*args, env) == (
            0, 'CUDA 10.0, with cuBLAS 12, is in %s already\n' % env)
    cuda.install(env, str(folder), '10')
    assert said(env) == (0, 'CUDA 10.0 is in %s already\n' % env)
    cuda.remove(str(folder))
    # There is no driver here, or one that finds all in place.
    assert said('--if-driver', str(tmp_path)) == (0, '') or cuda.loads(
        'libcuda.so.1')
    assert said('--remove', env) == (0, 'CUDA 10.0 is out of %s\n' % env)
    assert contents(folder) == [FRAMEWORK]


def test_a_disk_that_is_full(environment):
    env, folder = environment
    done = subprocess.run(
        [*full_disk(str(folder), '64k', False), 'sh', '-c',
         'touch $1/libtensorflow_framework.so.1; shift; exec "$@"', 'sh',
         str(folder), sys.executable, SCRIPT, env],
        stderr=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        'Fetching CUDA 10.0 and cuDNN 7 of NVIDIA, 523 MB; 537 MB go into %s, and the '
        "wheels are not kept. NVIDIA's licences: %s" % (env, cuda.LICENCES),
        'error: 1060 MB are needed in %s, and 0 are free: make room and run again'
        % folder]


@pytest.mark.skipif(not cuda.is_installed(tf.sysconfig.get_lib(), '10'),
                    reason='make gpu puts CUDA 10.0 into .venv')
def test_tensorflow_misses_nothing_but_the_driver():
    found = cards.look(tf.sysconfig.get_lib())
    assert found.missing in ([], ['libcuda.so.1'])
    for name in cuda.NAMES:
        path = os.path.join(tf.sysconfig.get_lib(), name)
        ctypes.CDLL(path)
        with open('/proc/self/maps') as maps:
            assert os.path.realpath(path) in maps.read()


@pytest.mark.skipif(not os.path.exists(os.path.join(tf.sysconfig.get_lib(),
                                                    'libcublas.so.10.0')),
                    reason='make gpu puts CUDA 10.0 into .venv')
def test_every_function_that_tensorflow_asks_cublas_for_is_there():
    folder = tf.sysconfig.get_lib()
    with open(os.path.join(folder, 'libtensorflow_framework.so.1'), 'rb') as f:
        names = set(re.findall(rb'\0(cublas[A-Z]\w*)(?=\0)', f.read()))
    assert len(names) == 415
    # With cuBLAS 12 beside it, it needs that one's libcublasLt.so.12.
    cublas = ctypes.CDLL(os.path.join(folder, 'libcublas.so.10.0'))
    assert not [name for name in names if not hasattr(cublas, name.decode())]
