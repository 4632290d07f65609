"""Choosing a device, explaining its errors, and the memory of malloc."""
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import ROOT

from training import device, gpu
from training.errors import UserError

T4 = 'name: Tesla T4, pci bus id: 0000:00:04.0, compute capability: 7.5'
H100 = 'name: NVIDIA H100, pci bus id: 0000:00:04.0, compute capability: 9.0'


@pytest.fixture
def tensorflow_finds(monkeypatch):
    """A function that takes the descriptions of the GPUs that TensorFlow lists."""
    def list_gpus(*descriptions):
        class LocalDevice(object):
            device_type = 'GPU'

            def __init__(self, description):
                self.physical_device_desc = 'device: 0, ' + description

        monkeypatch.setattr(device.device_lib, 'list_local_devices', lambda config: (
            [] if config.device_count.get('GPU') == 0
            else list(map(LocalDevice, descriptions))))

    return list_gpus


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what `gpu.look` finds."""
    def set_machine(driver=None, missing=(), gpus=(), visible=None):
        monkeypatch.setattr(gpu, 'look', lambda folder: gpu.Machine(
            driver, dict(dict.fromkeys(gpu.CUDA_LIBRARIES, 'found'),
                         **dict.fromkeys(missing)), 0, list(gpus), visible))

    return set_machine


def test_device_is_named(tensorflow_finds, capsys):
    tensorflow_finds(T4)
    for where, name, line in (
            ('auto', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('gpu', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('cpu', 'CPU', 'training on the CPU, as --device cpu asks\n')):
        assert device.choose(tf.ConfigProto(), where) == (name, None)
        assert capsys.readouterr().err == line


def test_only_the_first_gpu_is_shown_to_tensorflow(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(device, '_list_gpus', lambda config: shown.append(
        os.environ['CUDA_VISIBLE_DEVICES']) or [T4])
    for visible, where, first, more in (
            (None, 'auto', '0', ''), ('3', 'auto', '3', ''),
            ('3,1', 'gpu', '3', ', the first of 2; CUDA_VISIBLE_DEVICES chooses '
             'another'), ('', 'auto', '', ''), ('2,0', 'cpu', '-1', None)):
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        device.choose(tf.ConfigProto(), where)
        assert shown.pop() == first
        assert os.environ.get('CUDA_VISIBLE_DEVICES') == visible
        stderr = capsys.readouterr().err
        if more is not None:
            assert stderr == 'training on the GPU: Tesla T4%s\n' % more


@pytest.mark.parametrize('cores, workers, intra, inter', [
    (1, 1, 1, 1), (2, 1, 1, 2), (3, 1, 3, 3), (16, 1, 16, 16), (64, 1, 16, 16),
    (6, 2, 3, 3), (4, 2, 1, 2), (1, 2, 1, 1)])
def test_cores_are_shared(cores, workers, intra, inter, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    config = tf.ConfigProto()
    device.share_cores(config, workers_here=workers)
    assert config.intra_op_parallelism_threads == intra
    assert config.inter_op_parallelism_threads == inter
    device.share_cores(config, True, workers)
    assert config.intra_op_parallelism_threads == inter


def test_missing_libraries_are_named(tensorflow_finds, machine, capsys):
    tensorflow_finds()
    machine(missing=['libcudart.so.10.0', 'libcudnn.so.7'])
    assert device.choose(tf.ConfigProto(), 'auto') == ('CPU', None)
    assert capsys.readouterr().err == (
        'training on the CPU, since it could not load libcudart.so.10.0, '
        'libcudnn.so.7\n')
    machine(visible='-1')
    assert device.why_no_gpu() == ('since CUDA_VISIBLE_DEVICES=-1 shows no GPU', None)


def test_unused_gpu_is_told_with_what_to_do(tensorflow_finds, machine, capsys):
    tensorflow_finds()
    machine('535.104.05', ['libcudart.so.10.0'], [('Tesla T4', (7, 5))])
    why = 'since it could not load libcudart.so.10.0: make gpu'
    assert device.choose(tf.ConfigProto(), 'auto') == (
        'CPU', 'the GPU of this machine was not used, ' + why)
    assert capsys.readouterr().err == 'training on the CPU, %s\n' % why
    with pytest.raises(UserError) as error:
        device.choose(tf.ConfigProto(), 'gpu')
    assert str(error.value) == ('--device gpu: there is no GPU to train on, %s: see '
                                'docs/gpu.md, or use --device auto' % why)
    assert device.choose(tf.ConfigProto(), 'cpu') == ('CPU', None)


def test_newer_gpu_gets_a_warning(tensorflow_finds, capsys):
    tensorflow_finds(H100)
    assert device.choose(tf.ConfigProto(), 'auto') == ('NVIDIA H100', None)
    assert capsys.readouterr().err == (
        'training on the GPU: NVIDIA H100\nwarning: this GPU is newer than CUDA '
        '10.0: the first start compiles for many minutes, and cuBLAS may fail then; '
        'if it fails, ' + NEWER + '\n')


NEWER = ("try make gpu CUBLAS=12, which was not tested on a GPU, or use NVIDIA's "
         'container (docs/gpu.md)')
STOP = 'stop other programs on the GPU (see nvidia-smi)'
MEMORY = STOP + ', or lower --batch_size, --hidden_size or --layer_num'
CUBLAS = STOP + '; if the GPU is newer than RTX 20, ' + NEWER


@pytest.mark.parametrize('kind, message, what, advice', [
    ('ResourceExhaustedError', 'OOM when allocating tensor\nwith a shape',
     'out of memory',
     'stop other programs, or lower --batch_size, --hidden_size or --layer_num'),
    ('InternalError', 'cudaGetDevice() failed. Status: CUDA driver version is '
     'insufficient for CUDA runtime version',
     'the NVIDIA driver is too old for CUDA 10.0', 'update it to 410.48 or newer'),
    ('InternalError', 'failed initializing StreamExecutor: CUDA_ERROR_OUT_OF_MEMORY: '
     'out of memory', 'out of GPU memory', MEMORY),
    ('InternalError', 'failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED',
     'out of GPU memory', MEMORY),
    ('InternalError', 'failed to run: CUBLAS_STATUS_EXECUTION_FAILED',
     'cuBLAS failed on this GPU', CUBLAS),
    ('InternalError', 'Blas GEMM launch failed : a.shape=(128, 284)\n [[node]]',
     'cuBLAS failed on this GPU', CUBLAS),
    ('InternalError', 'CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access',
     'the GPU failed', 'see nvidia-smi and dmesg, and continue with --resume')])
def test_tensorflows_errors_are_explained(kind, message, what, advice):
    error = getattr(tf.errors, kind)(None, None, message)
    assert str(device.explain(error)) == '%s (%s): %s' % (
        what, message.split('\n')[0], advice)
    assert device.explain(ValueError(message)) is None


def test_gpu_that_fails_when_it_is_listed(monkeypatch):
    def fail(config):
        raise tf.errors.InternalError(None, None, 'CUDA_ERROR_OUT_OF_MEMORY')

    monkeypatch.setattr(device.device_lib, 'list_local_devices', fail)
    with pytest.raises(UserError, match='out of GPU memory'):
        device.choose(tf.ConfigProto(), 'auto')


def test_memory_is_kept_and_then_returned():
    # In a new process, since a process that has run tests has memory to spare.
    before, kept, after = map(int, subprocess.run(
        [sys.executable, '-c', """if True:
            import os
            import numpy as np
            from training import device

            def print_resident():
                with open('/proc/self/statm') as f:
                    print(int(f.read().split()[1]) * os.sysconf('SC_PAGE_SIZE'))

            print_resident()
            with device.keep_memory():
                [np.ones(2 ** 24, np.uint8) for _ in range(8)]  # freed at once
                print_resident()
            print_resident()"""],
        cwd=ROOT, stdout=subprocess.PIPE, check=True,
        universal_newlines=True).stdout.split())
    assert kept - before > 0.9 * 2 ** 27
    assert after - before < 0.1 * 2 ** 24
