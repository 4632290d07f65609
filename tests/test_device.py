"""Where the graph runs."""
import os

import pytest
import tensorflow as tf

from training import device


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
        assert device.choose(config, where) == name
        assert capsys.readouterr().err == line


@pytest.mark.parametrize('cores, threads', [(1, 1), (2, 1), (9, 4)])
def test_half_of_the_cores_share_an_operation(cores, threads, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(cores)))
    config = tf.ConfigProto()
    device.share_cores(config)
    assert config.intra_op_parallelism_threads == threads
    config = tf.ConfigProto()
    device.share_cores(config, dynamic_rnn=True)
    assert config.intra_op_parallelism_threads == 0  # all


def test_the_libraries_that_are_missing_are_named(devices, capsys, monkeypatch):
    devices([])
    monkeypatch.setattr(device, 'CUDA_LIBRARIES',
                        ('libc.so.6', 'libcudart.so.0', 'libcudnn.so.0'))
    assert device.choose(tf.ConfigProto(), 'auto') == 'CPU'
    assert capsys.readouterr().err == (
        'training on the CPU, since it could not load libcudart.so.0, '
        'libcudnn.so.0\n')
    monkeypatch.setattr(device, 'CUDA_LIBRARIES', ('libc.so.6',))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')
    assert device.why_no_gpu() == (
        'since CUDA_VISIBLE_DEVICES=-1 shows it no GPU')
