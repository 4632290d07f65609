"""Trainings on the null GPU of tests/null_cuda: TensorFlow's GPU code without a GPU.

It computes nothing. The tests show what runs where, and what a user reads if the GPU
fails.
"""
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, call, run

from training import gpu
from training.gpu import ADVICE, RESTART

SCRIPT = 'train_lstm_mnist.py'
FLAGS = ('--dataset', 'digits', '--steps', 3, '--hidden_size', 8, '--layer_num', 1,
         '--batch_size', 16)
GPU = 'training on the GPU: Null CUDA device'
DETAILS = 'Null CUDA device, compute capability %s, %d of 8192 MiB free'
TOO_OLD = ('the GPU is too old for TensorFlow 1.15, whose lowest compute capability is '
           '3.5 (%s)' % DETAILS % ('3.0', 7892))
OLD_DRIVER = ('the NVIDIA driver supports CUDA 9.2, and TensorFlow 1.15 needs 10.0: '
              'update the driver to 410.48 or newer')
NO_GPU = 'error: --device gpu: there is no GPU to use, since '
OTHERS = 'stop other programs on the GPU (nvidia-smi lists them)'
BLAS = ('error: the GPU failed (Blas GEMM launch failed : a.shape=(%s), b.shape=(%s), '
        'm=%d, n=%d, k=%d): see what nvidia-smi and dmesg say, ' + OTHERS + ', or use '
        '--device cpu; if the GPU is newer than RTX 20, see docs/gpu.md')
BUSY = ('error: other programs use the memory of the GPU (%s): stop them (nvidia-smi '
        'lists them), or use --device cpu')
NOTHING_FREE = BUSY % 'Null CUDA device, compute capability 7.0'
ALONE = ('error: another program uses the GPU alone, in exclusive mode (Null CUDA '
         'device, compute capability 7.0): stop it (nvidia-smi lists it), or use '
         '--device cpu')
NO_START = ('error: the GPU does not start, CUDA_ERROR_UNKNOWN (Null CUDA device, '
            'compute capability 7.0): %s, or use --device cpu' % RESTART)
UNKNOWN = ('the NVIDIA driver shows no GPU (CUDA_ERROR_UNKNOWN): ' + ADVICE[999])


FAILED = ('error: the GPU failed (%s): see what nvidia-smi and dmesg say, or use '
          '--device cpu')


@pytest.fixture
def on_null_gpu(null_gpu):
    """A function that runs a script with settings of the null GPU, as `run` does.

    Lines about NUMA are removed from stderr. TensorFlow prints them because the null
    GPU is on no PCI bus, and in WSL2.
    """
    def on_null_gpu(script, *args, **settings):
        env = {'CUDA_VISIBLE_DEVICES': None, **null_gpu, **settings}
        done = run(script, *args, server=('env', *map('='.join, null_gpu.items())),
                   **env)
        done.stderr = ''.join(line for line in done.stderr.splitlines(True)
                              if 'NUMA' not in line)
        return done
    return on_null_gpu


@pytest.fixture
def only_ask(null_gpu, monkeypatch):
    """A function that does the same faster, in this process.

    The null GPU is seen by the process that asks the driver, and not by TensorFlow.
    """
    def only_ask(script, *args, **settings):
        gpu.look.cache_clear()
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
        for name, value in dict(null_gpu, **settings).items():
            monkeypatch.setenv(name, value)
        return call(script, *args)
    return only_ask


def counts(path):
    """Return {name: count} of a log of the null GPU."""
    return {name: int(count) for name, count in re.findall(
        r'^([a-z ]+)\t(\d+)', path.read_text(), re.M)}


MEMORY = 'other programs use the memory of the GPU'


@pytest.mark.parametrize('settings, first, chosen', [
    ({'NULL_CUDA_GPUS': '2'}, '0', ', GPU 0 of 2%s'),
    ({'NULL_CUDA_GPUS': '1'}, '0', ''),
    ({'NULL_CUDA_GPUS': '3', 'NULL_CUDA_USED_MIB': '8000,7800,0'}, '2',
     ', GPU 2 of 3, as GPU 0, 1: %s%%s' % MEMORY),
    ({'NULL_CUDA_GPUS': '4', 'NULL_CUDA_CONTEXT': '46,214,999,0'}, '3',
     ', GPU 3 of 4, as GPU 0: another program uses the GPU alone, in exclusive mode; '
     'GPU 1: the GPU does not start, CUDA_ERROR_ECC_UNCORRECTABLE; GPU 2: the GPU does '
     'not start, CUDA_ERROR_UNKNOWN%s'),
    ({'NULL_CUDA_GPUS': '2', 'NULL_CUDA_CC': '3.0,7.5'}, '1',
     ', GPU 1 of 2, as GPU 0: the GPU is too old for TensorFlow 1.15, whose lowest '
     'compute capability is 3.5%s'),
    ({'NULL_CUDA_GPUS': '2', 'NULL_CUDA_CC': '3.5,7.5', 'NULL_CUDA_SMS': '1,40'}, '1',
     ', GPU 1 of 2, as GPU 0: TensorFlow ignores a small GPU (multiprocessors: 1) '
     'beside a larger one (40)%s'),
    # The user's choice.
    ({'NULL_CUDA_GPUS': '2', 'CUDA_VISIBLE_DEVICES': '1,0'}, '1', ', GPU 1 of 2%s'),
    ({'NULL_CUDA_GPUS': '2', 'CUDA_VISIBLE_DEVICES': 'GPU-1,MIG-0',
      'NULL_CUDA_USED_MIB': '0,8000'}, '0',
     ', GPU MIG-0 of 2, as GPU GPU-1: %s%%s' % MEMORY),
    ({'NULL_CUDA_GPUS': '2', 'NULL_CUDA_SMS': '1,40', 'CUDA_VISIBLE_DEVICES': '0'}, '0',
     '')])
def test_the_first_gpu_that_is_usable_and_free_is_chosen(
        settings, first, chosen, on_null_gpu, tmp_path):
    log = tmp_path / 'log'
    # So many images end the run before its first step.
    done = on_null_gpu(SCRIPT, *FLAGS, '--dynamic_rnn', '--batch_size', 2000,
                       NULL_CUDA_LOG=str(log), **settings)
    assert done.stderr.splitlines() == [
        GPU + (chosen and chosen % '; CUDA_VISIBLE_DEVICES chooses another'),
        'error: --batch_size 2000 is more than the 1257 images to train with: lower it']
    assert re.findall(r'GPU (\d)\tcontexts (\d)', log.read_text()) == [(first, '1')]


def test_it_trains_on_the_gpu_that_is_chosen(on_null_gpu, tmp_path):
    log = tmp_path / 'log'
    done = on_null_gpu(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run',
                       NULL_CUDA_GPUS='2', NULL_CUDA_USED_MIB='8000,0',
                       NULL_CUDA_LOG=str(log))
    assert done.returncode == 0, done.stderr
    device, run_dir, _, _ = done.stderr.splitlines()  # the progress, where it is kept
    assert device.startswith(GPU + ', GPU 1 of 2, as GPU 0: ')
    assert run_dir == 'run directory: %s' % (tmp_path / 'run')
    assert json.loads((tmp_path / 'run/result.json').read_text())['device'] == (
        'Null CUDA device')
    assert re.findall(r'GPU (\d)\tcontexts (\d)', log.read_text()) == [('1', '1')]
    assert counts(log)['launches'] > 1000


def test_device_cpu_leaves_the_gpu_alone(on_null_gpu, tmp_path):
    log = tmp_path / 'log'
    done = on_null_gpu(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run', '--device',
                       'cpu', NULL_CUDA_LOG=str(log))
    assert done.stderr.startswith('training on the CPU, as --device cpu asks\nrun ')
    assert counts(log)['contexts'] == 0


@pytest.mark.parametrize('capability, advice', [
    ('8.6', "if it fails, use NVIDIA's build of TensorFlow 1.15 (docs/gpu.md)"),
    ('5.0', 'wait at the first start, while the driver compiles TensorFlow for it')])
def test_a_long_start_is_announced_before_it_begins(
        capability, advice, on_null_gpu, tmp_path):
    done = on_null_gpu(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run',
                       NULL_CUDA_CC=capability, NULL_CUDA_DRIVER='12020')
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[:2] == [
        'warning: TensorFlow has no machine code for Null CUDA device. At the first '
        'start the driver compiles it, which takes five minutes or more: ' + advice,
        GPU]


@pytest.mark.parametrize('settings, why', [
    ({'NULL_CUDA_CC': '3.0'}, TOO_OLD),
    ({'NULL_CUDA_DRIVER': '9020'}, OLD_DRIVER),
    ({'NULL_CUDA_FAIL': 'init:999'}, UNKNOWN)])
def test_a_gpu_that_cannot_be_used_is_told_twice(settings, why, only_ask, tmp_path):
    done = only_ask(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run', **settings)
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert lines[0] == 'training on the CPU, since ' + why
    assert lines[-1] == 'note: this was trained on the CPU, since ' + why
    assert len(lines) == 5  # and the run directory, twice, and the progress


@pytest.mark.parametrize('settings, flags, error', [
    ({'NULL_CUDA_CC': '3.0'}, ['--device', 'gpu'],
     NO_GPU + TOO_OLD + ': use --device cpu'),
    ({'NULL_CUDA_DRIVER': '9020'}, ['--device', 'gpu'],
     NO_GPU + OLD_DRIVER + ', or use --device cpu'),
    ({'NULL_CUDA_USED_MIB': '8000'}, [], NOTHING_FREE),
    ({'NULL_CUDA_USED_MIB': '7800'}, ['--device', 'gpu'],
     BUSY % DETAILS % ('7.0', 92)),
    ({'NULL_CUDA_USED_MIB': '8000,7800', 'NULL_CUDA_GPUS': '2'}, [],
     'error: GPU 0, 1: %s: stop them (nvidia-smi lists them), or use --device cpu'
     % MEMORY),
    ({'NULL_CUDA_USED_MIB': '8000,0', 'NULL_CUDA_GPUS': '2',
      'CUDA_VISIBLE_DEVICES': '0'}, [], NOTHING_FREE),
    ({'NULL_CUDA_FAIL': 'context:46'}, [], ALONE),
    ({'NULL_CUDA_FAIL': 'context:999'}, [], NO_START)])
def test_a_gpu_that_is_busy_or_asked_for_in_vain_is_an_error(
        settings, flags, error, only_ask, tmp_path):
    done = only_ask(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run', *flags, **settings)
    assert (done.returncode, done.stderr) == (1, error + '\n')
    assert not (tmp_path / 'run').exists()


def test_a_gpu_that_fails_before_there_is_a_run_directory(on_null_gpu, tmp_path):
    done = on_null_gpu(SCRIPT, *FLAGS, cwd=tmp_path, NULL_CUDA_FAIL='sync@1')
    assert done.returncode == 1
    assert done.error_lines == [FAILED % 'GPU sync failed']


def test_a_gpu_that_fails_is_not_a_damaged_checkpoint(
        digits_run, on_null_gpu, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    with open(str(tmp_path / 'run/config.json')) as f:
        steps = json.load(f)['steps'] + 2
    done = on_null_gpu(SCRIPT, '--resume', tmp_path / 'run', '--steps', steps,
                       '--device', 'gpu', NULL_CUDA_FAIL='sync@2')
    assert done.returncode == 1
    line, = done.error_lines
    assert line.startswith(FAILED % 'GPU sync failed' + '; then go on with --resume ')


@pytest.mark.parametrize('settings, flags, error', [
    ({'NULL_CUDA_FAIL': 'cublas'}, [], BLAS % ('16, 36', '36, 32', 16, 32, 36)),
    ({'NULL_CUDA_MIB': '720'}, ['--hidden_size', 4096], 'error: out of GPU memory '
     '(OOM): ' + OTHERS + ', or lower --batch_size, --hidden_size or --layer_num')])
def test_a_gpu_that_fails_is_an_error(settings, flags, error, on_null_gpu, tmp_path):
    done = on_null_gpu(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run', *flags,
                       **settings)
    assert done.returncode == 1
    assert [re.sub(r'\(OOM [^)]*\)', '(OOM)', line)
            for line in done.error_lines] == [error]
    assert done.stderr.splitlines()[-1] == done.error_lines[0]


def test_a_run_of_the_cpu_goes_on_on_the_gpu_and_after_a_failure(on_null_gpu, tmp_path):
    run_dir = tmp_path / 'run'
    assert on_null_gpu(SCRIPT, *FLAGS, '--run_dir', run_dir, '--device', 'cpu'
                       ).returncode == 0
    resume = (SCRIPT, '--resume', run_dir, '--device', 'gpu', '--save_every', 5,
              '--steps')
    done = on_null_gpu(*resume, 20, NULL_CUDA_FAIL='gemm@700')
    assert done.returncode == 1
    assert done.stderr.startswith(GPU)
    assert done.error_lines[0].endswith(
        '; then go on with --resume %s, which has the checkpoint of step 10' % run_dir)
    done = on_null_gpu(*resume, 12)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(GPU)


def test_predict_uses_the_cpu_unless_it_is_asked_for_the_gpu(
        digits_run, on_null_gpu, only_ask, tmp_path):
    what = 'predict.py', digits_run, '--test', 3
    log = tmp_path / 'log'
    done = on_null_gpu(*what, NULL_CUDA_FAIL='context', NULL_CUDA_LOG=str(log))
    assert (done.returncode, done.stderr) == (0, '')
    assert counts(log)['contexts'] == 0
    done = on_null_gpu(*what, '--device', 'gpu', NULL_CUDA_LOG=str(log))
    assert (done.returncode, done.stderr) == (0, '')
    assert counts(log)['launches'] > 100
    done = on_null_gpu(*what, '--device', 'gpu', NULL_CUDA_FAIL='copy')
    assert (done.returncode, done.error_lines) == (
        1, [FAILED % 'Failed to memcopy into scratch buffer for device 0'])
    # A kernel fails, which TensorFlow tells when it calls cuBLAS.
    done = on_null_gpu(*what, '--device', 'gpu', NULL_CUDA_FAIL='fault@50:719')
    assert done.returncode == 1
    assert [re.sub(r'a\.shape.*k=\d+', '', line) for line in done.error_lines] == [
        re.sub(r'a\.shape.*k=%d', '', BLAS)]
    done = only_ask(*what, '--device', 'gpu', NULL_CUDA_USED_MIB='8000')
    assert (done.returncode, done.stderr) == (1, NOTHING_FREE + '\n')


HANGS = '#include <unistd.h>\nint cuInit(unsigned flags) { for (;;) pause(); }'
CRASHES = 'int cuInit(unsigned flags) { return *(volatile int *) 0; }'
VERSION = '\nint cuDriverGetVersion(int *v) { *v = 12020; return 0; }'


@pytest.mark.parametrize('code', [HANGS, CRASHES])
def test_the_cpu_needs_no_driver(code, made_up_driver, digits_run, tmp_path):
    script = {HANGS: (SCRIPT, *FLAGS, '--device', 'cpu', '--run_dir', tmp_path / 'run'),
              CRASHES: ('predict.py', digits_run, '--test', 3)}[code]
    done = run(*script, CUDA_VISIBLE_DEVICES=None,
               LD_LIBRARY_PATH=made_up_driver(code + VERSION))
    assert done.returncode == 0 and 'cuInit' not in done.stderr, done.stderr


def test_without_a_usable_driver_it_trains_on_the_cpu(
        made_up_driver, only_ask, tmp_path):
    done = only_ask(SCRIPT, *FLAGS, '--run_dir', tmp_path / 'run', LD_PRELOAD='',
                    LD_LIBRARY_PATH=made_up_driver(CRASHES + VERSION))
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith('training on the CPU, since the NVIDIA driver gives '
                                  'no answer (status -11): ' + RESTART)


@pytest.mark.parametrize('flags', [[], ['--device', 'cpu']])
def test_a_driver_that_hangs_and_is_in_ld_preload_is_an_error(
        flags, on_null_gpu, tmp_path):
    limits = 'from training import gpu; gpu.PATIENCE, gpu.LIMIT = 0.5, 1'
    (tmp_path / 'train.py').write_text(
        'import sys; sys.path[0] = %r\n%s\nimport train_lstm_mnist\n'
        'sys.exit(train_lstm_mnist.main())' % (ROOT, limits))
    done = on_null_gpu(str(tmp_path / 'train.py'), *FLAGS, *flags, cwd=tmp_path,
                       NULL_CUDA_WAIT='1000')
    assert (done.returncode, done.stderr.splitlines()) == (1, [
        'waiting for the NVIDIA driver, 1 s at most',
        'error: the NVIDIA driver gives no answer, and LD_PRELOAD makes TensorFlow '
        'wait for it: unset LD_PRELOAD'])


# One step of the whole network on the null GPU: where operations run, what is copied.
STEP = '''
import ctypes, json, os, sys
sys.path[:0] = {root!r}, os.path.join({root!r}, 'tests')
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import numpy as np
import tensorflow as tf
import model
null = ctypes.CDLL('libcuda.so.1')
m = model.build(1e-3, 256, 2, dynamic_rnn={dynamic_rnn})
feed = dict(zip((m._X, m.y, m.keep_prob, m.batch_size),
                (np.zeros((128, 784)), np.eye(10)[np.arange(128) % 10], .5, 128)))
options = tf.RunOptions(output_partition_graphs=True)
metadata = tf.RunMetadata()
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    for _ in range(2):
        sess.run([m.cross_entropy, m.train_op], feed)
    null.null_cuda_reset()
    sess.run([m.cross_entropy, m.train_op], feed)
    null.null_cuda_write({log!r}.encode())
    sess.run([m.cross_entropy, m.train_op], feed, options, metadata)
print(json.dumps(sorted({{node.op for graph in metadata.partition_graphs
                         for node in graph.node if 'CPU' in node.device}})))
'''
# What runs on the CPU: copies, control and integers that TensorFlow counts there.
ON_CPU = {'NoOp', '_Arg', '_HostSend', '_HostRecv', '_Send', '_Recv', '_Retval',
          'Const', 'Identity'}


@pytest.mark.parametrize('dynamic_rnn, more, copies', [
    (False, set(), (4, 1)),
    (True, {'Enter', 'Exit', 'LogicalAnd', 'LoopCond', 'Merge', 'NextIteration',
            'Switch'}, (6, 1))])
def test_a_step_computes_on_the_gpu_and_copies_little(
        dynamic_rnn, more, copies, null_gpu, tmp_path):
    log = tmp_path / 'log'
    done = subprocess.run(
        ['env', '-u', 'CUDA_VISIBLE_DEVICES', sys.executable, '-c', STEP.format(
            root=ROOT, log=str(log), dynamic_rnn=dynamic_rnn)],
        env=dict(os.environ, **null_gpu), stdout=subprocess.PIPE, check=True,
        universal_newlines=True)
    assert not set(json.loads(done.stdout)) - ON_CPU - more
    found = counts(log)
    assert (found['copies host to device'], found['copies device to host']) == copies
