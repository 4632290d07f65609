"""On a card. Skipped where there is none, and not run yet: none was at hand."""
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import CARDS, ROOT, call, run

from training import summaries

SCRIPT = 'train_lstm_mnist.py'
# Without dropout, so that the card computes what the CPU does.
FLAGS = ('--dataset', 'digits', '--keep_prob', 1, '--seed', 3, '--log_every', 1)


def can_use_a_card():
    if not os.path.exists('/proc/driver/nvidia/version'):
        return False
    return not subprocess.run([sys.executable, '-m', 'training.cards'], cwd=ROOT,
                              env=dict(os.environ, **CARDS),
                              stdout=subprocess.DEVNULL).returncode


pytestmark = pytest.mark.skipif(not can_use_a_card(),
                                reason='there is no card that can be used')


def train(run_dir, *flags, device='gpu'):
    done = run(SCRIPT, *FLAGS, '--device', device, '--run_dir', run_dir, *flags,
               **CARDS)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope='module')
def on_card(tmp_path_factory):
    """A run of 20 steps on the card."""
    run_dir = tmp_path_factory.mktemp('card') / 'run'
    done = train(run_dir, '--steps', 20)
    run_dir.joinpath('stderr').write_text(done.stderr)
    return run_dir


def losses(run_dir):
    points = summaries.read(str(run_dir))['loss/training']
    return [points[step] for step in sorted(points)]


def test_the_card_is_named(on_card):
    name = re.search('^training on the GPU: (.+)$',
                     (on_card / 'stderr').read_text(), re.M)[1]
    assert json.loads((on_card / 'result.json').read_text())['device'] == name


def test_losses_are_those_of_the_cpu(on_card, tmp_path):
    train(tmp_path / 'cpu', '--steps', 20, device='cpu')
    found = losses(on_card)
    assert len(found) == 20
    np.testing.assert_allclose(found, losses(tmp_path / 'cpu'), rtol=1e-3)


@pytest.mark.parametrize('first, then', [('gpu', 'cpu'), ('cpu', 'gpu')])
def test_a_run_goes_on_on_the_other_device(first, then, on_card, tmp_path):
    train(tmp_path / 'run', '--steps', 10, device=first)
    done = run(SCRIPT, '--resume', tmp_path / 'run', '--steps', 20, '--device', then,
               **CARDS)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses(tmp_path / 'run'), losses(on_card), rtol=1e-3)


def test_memory_is_taken_as_it_is_needed(tmp_path):
    smi = ['nvidia-smi', '--format=csv,noheader,nounits', '--id=0']
    total = int(subprocess.check_output(smi + ['--query-gpu=memory.total']))
    code = ('import subprocess, sys, train_lstm_mnist as t\n'
            'from training import notes\n'
            'log = notes.Notes.log\n'
            'def look(self, *args):\n'
            '    log(self, *args)\n'
            '    print("used", subprocess.check_output(%r).decode(), flush=True)\n'
            'notes.Notes.log = look\n'
            'sys.exit(t.main())' % (smi + ['--query-gpu=memory.used'],))
    before = int(subprocess.check_output(smi + ['--query-gpu=memory.used']))
    done = subprocess.run(
        [sys.executable, '-c', code, *map(str, FLAGS), '--device', 'gpu', '--steps',
         '3', '--run_dir', str(tmp_path / 'run')], cwd=ROOT,
        env=dict(os.environ, **CARDS), stdout=subprocess.PIPE,
        universal_newlines=True, check=True)
    used = [int(line.split()[1]) for line in done.stdout.splitlines()
            if line.startswith('used ')]
    assert len(used) == 3
    assert max(used) - before < total / 4


def test_what_was_trained_on_the_card_is_used_on_the_cpu(on_card):
    assert tf.test.gpu_device_name() == ''  # conftest hides the cards
    done = call('predict.py', on_card, '--test', 3)
    assert done.returncode == 0
    assert re.fullmatch(r'test image 3: \d, probability .*\n', done.stdout)
