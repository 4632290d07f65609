"""Choosing a device, and explaining its errors."""
import os
from unittest import mock

import pytest
import tensorflow as tf

from training import device


@pytest.mark.parametrize('cores, workers, intra, inter', [
    (1, 1, 1, 2), (2, 1, 1, 2), (3, 1, 3, 3), (16, 1, 16, 16), (64, 1, 16, 16),
    (6, 2, 3, 3), (4, 2, 1, 2), (1, 2, 1, 2)])
def test_cores_are_shared(cores, workers, intra, inter, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))

    def threads(avx512, dynamic_rnn):
        monkeypatch.setattr(device, 'has_avx512', lambda: avx512)
        config = tf.ConfigProto()
        device.share_cores(config, dynamic_rnn, workers)
        return config.intra_op_parallelism_threads, config.inter_op_parallelism_threads

    assert threads(True, False) == (intra, inter)
    assert threads(False, False) == threads(True, True) == (inter, inter)


def test_avx512_is_in_the_list_of_the_processor(monkeypatch):
    def cpuinfo(text):
        monkeypatch.setattr('builtins.open', mock.mock_open(read_data=text))
        return device.has_avx512()

    assert cpuinfo('flags\t\t: fpu avx2 avx512f avx512dq\n')
    assert not cpuinfo('flags\t\t: fpu avx avx2\n')
    monkeypatch.setattr('builtins.open', mock.Mock(side_effect=FileNotFoundError))
    assert not device.has_avx512()


STOP = 'stop other programs on the GPU (nvidia-smi lists them)'
MEMORY = STOP + ', or lower --batch_size, --hidden_size or --layer_num'
SEVERAL = """2 root error(s) found.
  (0) Internal: %s
\t [[{{node _arg_images_0_1}}]]
  (1) Internal: another
0 successful operations."""


@pytest.mark.parametrize('kind, message, what, advice', [
    ('ResourceExhaustedError', 'OOM when allocating tensor\nwith a shape',
     'out of GPU memory', MEMORY),
    ('InternalError', 'Dst tensor is not initialized.', 'out of GPU memory', MEMORY),
    ('InternalError', 'CUDA runtime implicit initialization on GPU:0 failed. Status: '
     'out of memory', 'out of GPU memory', MEMORY),
    ('InternalError', 'Blas GEMM launch failed : a.shape=(128, 284)\n [[node]]',
     'the GPU failed', 'see what nvidia-smi and dmesg say, ' + STOP + ', or use '
     '--device cpu; if the GPU is newer than RTX 20, see docs/gpu.md'),
    ('InternalError', 'GPU sync failed', 'the GPU failed',
     'see what nvidia-smi and dmesg say, or use --device cpu')])
def test_tensorflows_errors_are_explained(kind, message, what, advice):
    reason = message.split('\n')[0]
    for text in (message, SEVERAL % message):
        error = getattr(tf.errors, kind)(None, None, text)
        assert str(device.explain(error, True)) == (
            '%s (%s): %s' % (what, reason, advice))


def test_errors_on_a_cpu_do_not_speak_of_a_gpu():
    error = tf.errors.ResourceExhaustedError(None, None, 'OOM when allocating')
    assert str(device.explain(error, False)) == (
        'out of memory (OOM when allocating): stop other programs, or lower '
        '--batch_size, --hidden_size or --layer_num')
    assert device.explain(tf.errors.InternalError(None, None, 'odd'), False) is None
    assert device.explain(ValueError('OOM when allocating'), True) is None
    # A run that is resumed keeps its sizes.
    assert str(device.explain(error, False, can_shrink=False)) == (
        'out of memory (OOM when allocating): stop other programs')


def test_a_choice_leaves_the_users_variable_as_it_was(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '5')
    assert device.choose(tf.ConfigProto(), 'cpu').name == 'CPU'
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '5'
