"""Where the graph runs."""
import os

import pytest
import tensorflow as tf

from training import cards, device
from training.errors import UserError


class LocalDevice(object):
    device_type = 'GPU'
    physical_device_desc = ('device: 0, name: Tesla T4, pci bus id: '
                            '0000:00:04.0, compute capability: 7.5')


@pytest.fixture
def devices(monkeypatch):
    """Sets the devices that TensorFlow lists besides the CPU."""
    from tensorflow.python.client import device_lib

    def set_devices(devices):
        monkeypatch.setattr(device_lib, 'list_local_devices', lambda config: (
            [] if config.device_count.get('GPU') == 0 else devices))

    return set_devices


def test_device_is_named(devices, capsys):
    devices([LocalDevice])
    for where, name, line in (
            ('auto', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('gpu', 'Tesla T4', 'training on the GPU: Tesla T4\n'),
            ('cpu', 'CPU', 'training on the CPU, as --device cpu asks\n')):
        config = tf.ConfigProto()
        assert device.choose(config, where) == (name, None)
        assert capsys.readouterr().err == line


def test_one_card_is_taken(devices, monkeypatch, capsys):
    """TensorFlow is shown one, whatever there is, and what is shown is told."""
    shown = []
    monkeypatch.setattr(device, '_list_gpus', lambda config: shown.append(
        os.environ['CUDA_VISIBLE_DEVICES']) or [LocalDevice.physical_device_desc])
    for visible, where, one, more in (
            (None, 'auto', '0', ''), ('3', 'auto', '3', ''),
            ('3,1', 'gpu', '3', ', the first of 2; CUDA_VISIBLE_DEVICES names '
             'another'), ('', 'auto', '', ''), ('2,0', 'cpu', '-1', None)):
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if visible is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
        device.choose(tf.ConfigProto(), where)
        assert shown.pop() == one
        assert os.environ.get('CUDA_VISIBLE_DEVICES') == visible
        said = capsys.readouterr().err
        if more is not None:
            assert said == 'training on the GPU: Tesla T4%s\n' % more


@pytest.mark.parametrize('cores, threads, at_once', [
    (1, 1, 1), (2, 1, 2), (3, 3, 3), (16, 16, 16), (64, 16, 16)])
def test_how_cores_are_shared(cores, threads, at_once, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    config = tf.ConfigProto()
    device.share_cores(config)
    assert config.intra_op_parallelism_threads == threads
    assert config.inter_op_parallelism_threads == at_once
    device.share_cores(config, dynamic_rnn=True)
    assert config.intra_op_parallelism_threads == at_once


@pytest.fixture
def machine(monkeypatch):
    """Sets what `cards.look` finds."""
    def set_machine(driver=None, libraries=(), found=(), visible=None):
        monkeypatch.setattr(cards, 'look', lambda folder: cards.Machine(
            driver, dict(dict.fromkeys(cards.CUDA_LIBRARIES, 'found'),
                         **dict.fromkeys(libraries)), 0, list(found), visible))

    return set_machine


def test_the_libraries_that_are_missing_are_named(devices, machine, capsys):
    devices([])
    machine(libraries=['libcudart.so.10.0', 'libcudnn.so.7'])
    assert device.choose(tf.ConfigProto(), 'auto') == ('CPU', None)
    assert capsys.readouterr().err == (
        'training on the CPU, since it could not load libcudart.so.10.0, '
        'libcudnn.so.7\n')
    machine(visible='-1')
    assert device.why_no_gpu() == (
        'since CUDA_VISIBLE_DEVICES=-1 shows it no GPU', None)


def test_a_card_that_is_not_used_is_told_with_what_to_do(devices, machine, capsys):
    devices([])
    machine('535.104.05', ['libcudart.so.10.0'], [('Tesla T4', (7, 5))])
    assert device.choose(tf.ConfigProto(), 'auto') == (
        'CPU', 'the card here was not used, since it could not load '
        'libcudart.so.10.0: make gpu')
    assert capsys.readouterr().err == (
        'training on the CPU, since it could not load libcudart.so.10.0: make gpu\n')
    with pytest.raises(UserError) as error:
        device.choose(tf.ConfigProto(), 'gpu')
    assert str(error.value) == (
        '--device gpu: there is no GPU to train on, since it could not load '
        'libcudart.so.10.0: make gpu: see docs/gpu.md, or use --device auto')
    # Not where the CPU is asked for.
    assert device.choose(tf.ConfigProto(), 'cpu') == ('CPU', None)


def test_a_card_that_is_newer_is_warned_of(devices, capsys):
    class Newer(LocalDevice):
        physical_device_desc = ('device: 0, name: NVIDIA H100, pci bus id: '
                                '0000:00:04.0, compute capability: 9.0')

    devices([Newer])
    assert device.choose(tf.ConfigProto(), 'auto') == ('NVIDIA H100', None)
    assert capsys.readouterr().err == (
        'training on the GPU: NVIDIA H100\nwarning: this card is newer than CUDA '
        '10.0: the first start compiles for many minutes, and cuBLAS may fail then; '
        "if it fails, try make gpu CUBLAS=12, which was not tried on a card, or use "
        "NVIDIA's container (docs/gpu.md)\n")


MEMORY = ('end what else uses it (see nvidia-smi), or lower --batch_size, '
          '--hidden_size or --layer_num')
CUBLAS = ('end what else uses it (see nvidia-smi); for a card newer than RTX 20, try '
          "make gpu CUBLAS=12, which was not tried on a card, or use NVIDIA's "
          'container (docs/gpu.md)')


@pytest.mark.parametrize('kind, said, told', [
    ('ResourceExhaustedError', 'OOM when allocating tensor\nwith a shape',
     'out of memory (OOM when allocating tensor): lower --batch_size, --hidden_size '
     'or --layer_num'),
    ('InternalError', 'cudaGetDevice() failed. Status: CUDA driver version is '
     'insufficient for CUDA runtime version', 'the NVIDIA driver is too old for CUDA '
     '10.0 (cudaGetDevice() failed. Status: CUDA driver version is insufficient for '
     'CUDA runtime version): update it to 410.48 or newer'),
    ('InternalError', 'failed initializing StreamExecutor: CUDA_ERROR_OUT_OF_MEMORY: '
     'out of memory', "out of the card's memory (failed initializing StreamExecutor: "
     'CUDA_ERROR_OUT_OF_MEMORY: out of memory): ' + MEMORY),
    ('InternalError', 'failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED',
     "out of the card's memory (failed to create cublas handle: "
     'CUBLAS_STATUS_ALLOC_FAILED): ' + MEMORY),
    ('InternalError', 'failed to run: CUBLAS_STATUS_EXECUTION_FAILED',
     'cuBLAS failed on this card (failed to run: CUBLAS_STATUS_EXECUTION_FAILED): '
     + CUBLAS),
    ('InternalError', 'Blas GEMM launch failed : a.shape=(128, 284)\n [[node]]',
     'cuBLAS failed on this card (Blas GEMM launch failed : a.shape=(128, 284)): '
     + CUBLAS),
    ('InternalError', 'CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access',
     'the card failed (CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access): see '
     'nvidia-smi and dmesg, and go on with --resume')])
def test_what_goes_wrong_on_a_card(kind, said, told):
    error = getattr(tf.errors, kind)(None, None, said)
    assert str(device.explain(error)) == told
    assert device.explain(ValueError(said)) is None


def test_a_card_that_fails_as_it_is_listed(monkeypatch):
    def fail(config):
        raise tf.errors.InternalError(None, None, 'CUDA_ERROR_OUT_OF_MEMORY')

    monkeypatch.setattr(device.device_lib, 'list_local_devices', fail)
    with pytest.raises(UserError, match="out of the card's memory"):
        device.choose(tf.ConfigProto(), 'auto')
