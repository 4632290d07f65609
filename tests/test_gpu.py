"""Training on a GPU. Skipped without one, and not run on a real one yet.

The null GPU of tests/null_cuda runs what does not compare numbers.
"""
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import GPUS, ROOT, call, run

from training.metrics import read_scalars

SCRIPT = 'train_lstm_mnist.py'
# Without dropout, so that the GPU computes what the CPU does.
FLAGS = ('--dataset', 'digits', '--keep_prob', 1, '--seed', 3, '--log_every', 1)


diagnosis = subprocess.run([sys.executable, 'tools/check_gpu.py'], cwd=ROOT,
                           env=dict(os.environ, **GPUS), stdout=subprocess.PIPE)
pytestmark = pytest.mark.skipif(diagnosis.returncode, reason='no GPU can be used')
computes = pytest.mark.skipif(b'Null CUDA device' in diagnosis.stdout,
                              reason='the null GPU computes nothing')


def train(run_dir, *flags, device='gpu'):
    done = run(SCRIPT, *FLAGS, '--device', device, '--run_dir', run_dir, *flags, **GPUS)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope='module')
def gpu_run(tmp_path_factory):
    """A run of 20 steps on the GPU."""
    run_dir = tmp_path_factory.mktemp('gpu') / 'run'
    done = train(run_dir, '--steps', 20)
    run_dir.joinpath('stderr').write_text(done.stderr)
    return run_dir


def losses(run_dir):
    points = read_scalars(str(run_dir))['loss/training']
    return [points[step] for step in sorted(points)]


def test_gpu_is_named(gpu_run):
    name = re.search('^training on the GPU: (.+)$',
                     (gpu_run / 'stderr').read_text(), re.M)[1]
    assert json.loads((gpu_run / 'result.json').read_text())['device'] == name


@computes
def test_losses_are_those_of_the_cpu(gpu_run, tmp_path):
    train(tmp_path / 'cpu', '--steps', 20, device='cpu')
    found = losses(gpu_run)
    assert len(found) == 20
    np.testing.assert_allclose(found, losses(tmp_path / 'cpu'), rtol=1e-3)


@computes
def test_first_gradients_are_those_of_the_cpu(tmp_path):
    def gradients(device):
        train(tmp_path / device, '--steps', 1, device=device)
        checkpoint = tf.train.load_checkpoint(str(tmp_path / device))
        return {name: checkpoint.get_tensor(name)  # 0.1 times the gradient
                for name in checkpoint.get_variable_to_shape_map()
                if name.endswith('/Adam')}

    expected = gradients('cpu')
    assert len(expected) == 6
    for name, found in gradients('gpu').items():
        np.testing.assert_allclose(found, expected[name], rtol=0, err_msg=name,
                                   atol=1e-5 * np.abs(expected[name]).max())


@computes
@pytest.mark.parametrize('first, then', [('gpu', 'cpu'), ('cpu', 'gpu')])
def test_run_resumes_on_the_other_device(first, then, gpu_run, tmp_path):
    train(tmp_path / 'run', '--steps', 10, device=first)
    done = run(SCRIPT, '--resume', tmp_path / 'run', '--steps', 20, '--device', then,
               **GPUS)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path / 'run'), losses(gpu_run), rtol=1e-3)


@pytest.mark.skipif(not shutil.which('nvidia-smi'), reason='needs nvidia-smi')
def test_memory_is_taken_as_it_is_needed(tmp_path):
    smi = ['nvidia-smi', '--format=csv,noheader,nounits', '--id=0']
    total = int(subprocess.check_output(smi + ['--query-gpu=memory.total']))
    code = ('import subprocess, sys, train_lstm_mnist as t\n'
            'from training.metrics import MetricsHook\n'
            'after_step = MetricsHook.after_step\n'
            'def look(self, *args):\n'
            '    after_step(self, *args)\n'
            '    print("used", subprocess.check_output(%r).decode(), flush=True)\n'
            'MetricsHook.after_step = look\n'
            'sys.exit(t.main())' % (smi + ['--query-gpu=memory.used'],))
    before = int(subprocess.check_output(smi + ['--query-gpu=memory.used']))
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, FLAGS), '--device', 'gpu', '--steps',
         '3', '--run_dir', str(tmp_path / 'run')], cwd=ROOT,
        env=dict(os.environ, **GPUS), stdout=subprocess.PIPE,
        universal_newlines=True, check=True)
    used = [int(line.split()[1]) for line in done.stdout.splitlines()
            if line.startswith('used ')]
    assert len(used) == 3
    assert max(used) - before < total / 4


def test_cpu_uses_what_the_gpu_trained(gpu_run):
    assert tf.test.gpu_device_name() == ''  # conftest hides the GPUs
    done = call('predict.py', gpu_run, '--test', 3)
    assert done.returncode == 0
    assert re.fullmatch(r'test image 3: \d, probability .*\n', done.stdout)
