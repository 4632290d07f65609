"""Several workers that train one network: horovodrun, on this machine."""
import contextlib
import glob
import importlib.util
import os
import re
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import tensorflow as tf
from conftest import LIMIT, ROOT, call, run, send

import train_lstm_mnist
from training import mnist_files
from training.errors import UserError
from training.loop import Run
from training.run_directory import checkpoint_steps
from training.workers import Workers, join, launched

SCRIPT = os.path.join(ROOT, 'train_lstm_mnist.py')
# Without dropout, and a batch for two, three or four workers.
FLAGS = ('--dataset', 'digits', '--hidden_size', '8', '--layer_num', '1',
         '--dynamic_rnn', '--batch_size', '24', '--keep_prob', '1', '--seed', '3',
         '--device', 'cpu', '--steps', '60')

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec('horovod') is None, reason='make horovod installs it')
pytestmark = pytest.mark.long


def begin(workers, *flags, cwd, script=(SCRIPT,), **env):
    """Start workers with horovodrun; return its process."""
    return subprocess.Popen(
        [os.path.join(os.path.dirname(sys.executable), 'horovodrun'), '--gloo',
         '-np', str(workers), '-H', 'localhost:%d' % workers, sys.executable,
         *script, *map(str, flags)],
        cwd=str(cwd), env=dict(os.environ, **env), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)


def finish(running):
    """Return the exit status, and stdout and stderr as lists of lines."""
    try:
        stdout, stderr = running.communicate(timeout=LIMIT)
    finally:
        running.kill()
    assert 'Traceback' not in re.sub(  # horovodrun's own, when a worker fails
        r'(?s)Traceback.*RuntimeError: Horovod detected.*', '', stderr), stderr
    return running.returncode, stdout.splitlines(), stderr.splitlines()


def variables(run_dir):
    checkpoint = tf.train.load_checkpoint(str(run_dir))
    return {name: checkpoint.get_tensor(name)
            for name in checkpoint.get_variable_to_shape_map()}


@pytest.fixture(scope='module')
def one(tmp_path_factory):
    """The run directory of one process."""
    run_dir = tmp_path_factory.mktemp('one') / 'run'
    assert call('train_lstm_mnist.py', *FLAGS, '--run_dir',
                run_dir).returncode == 0
    return run_dir


def same(run_dir, other):
    expected = variables(other)
    found = variables(run_dir)
    assert sorted(found) == sorted(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5,
                                   err_msg=name)


@needs_horovod
def test_workers_end_with_the_weights_of_one(one, tmp_path):
    code = ('import sys, tensorflow as tf, train_lstm_mnist as t\n'
            'seed = tf.set_random_seed\n'
            'tf.set_random_seed = lambda s: (sys.__stderr__.write('
            '"seed %d\\n" % s), seed(s))\n'
            'sys.exit(t.main(sys.argv[1:]))')
    status, stdout, stderr = finish(begin(
        2, *FLAGS, '--horovod', '--run_dir', 'run', cwd=tmp_path, script=('-c', code),
        PYTHONPATH=ROOT))
    assert status == 0
    same(tmp_path / 'run', one)
    # Each drops other units.
    seeds = [re.fullmatch(r'\[(\d)\]<stderr>:seed (\d+)', line) for line in stderr]
    seeds = {found[1]: found[2] for found in seeds if found}
    assert sorted(seeds) == ['0', '1'] and seeds['0'] == '3' != seeds['1']
    stderr = [line for line in stderr if ':seed ' not in line]
    # Only rank 0 prints, besides TensorFlow's own errors about the GPU.
    assert [line for line in stdout + stderr if re.match(r'\[[1-9]', line)
            and 'cuda_driver.cc' not in line] == []
    said = [line.split('>:', 1)[1] for line in stdout if line.startswith('[0]')]
    assert said[0] == '(1257, 784)' and said[-1].startswith('test accuracy ')
    assert len(list(tmp_path.iterdir())) == 1


def worker(rank, cwd):
    """Return the process of a worker that runs in a folder."""
    for process in glob.glob('/proc/[0-9]*'):
        try:
            if os.readlink(process + '/cwd') == str(cwd):
                with open(process + '/environ') as environ, open(
                        process + '/cmdline') as command:
                    if ('HOROVOD_RANK=%d\0' % rank in environ.read()
                            and command.read().startswith(
                                '%s\0%s\0' % (sys.executable, SCRIPT))):
                        return int(process.split('/')[2])
        except OSError:
            pass  # gone, or another user's
    raise AssertionError('no worker %d' % rank)


@needs_horovod
def test_a_worker_dies_and_others_go_on(one, tmp_path):
    running = begin(2, *FLAGS, '--steps', 10 ** 6, '--log_every', 10,
                    '--save_every', 10, '--horovod', '--run_dir', 'run',
                    cwd=tmp_path)
    for line in running.stderr:
        if 'step 30 of' in line:
            break
    os.kill(worker(1, tmp_path), signal.SIGKILL)
    status, _, stderr = finish(running)
    assert status != 0
    line, = [line for line in stderr if line.startswith('[0]<stderr>:error:')]
    told = re.search(r'error: a worker was lost at step (\d+): see what it said, and '
                     r'go on with --resume run, which has the checkpoint of step '
                     r'(\d+)$', line)
    saved = int(told[2])
    assert saved % 10 == 0 and int(told[1]) - saved in range(1, 12)
    assert checkpoint_steps(str(tmp_path / 'run'))[0] == saved

    # Another number of workers goes on, and then one process.
    status, _, stderr = finish(begin(
        3, '--horovod', '--resume', 'run', '--steps', saved + 5, cwd=tmp_path))
    assert status == 0
    assert '[0]<stderr>:going on from step %d' % saved in stderr
    done = call('train_lstm_mnist.py', '--resume', 'run', '--steps', saved + 9,
                cwd=tmp_path)
    assert done.returncode == 0
    alone = tmp_path / 'alone'
    assert call('train_lstm_mnist.py', *FLAGS, '--steps', saved + 9,
                '--run_dir', alone).returncode == 0
    same(tmp_path / 'run', alone)


@needs_horovod
def test_ctrl_c_saves_and_stops_all_workers(tmp_path):
    running = begin(2, *FLAGS, '--steps', 10 ** 6, '--log_every', 10, '--horovod',
                    '--run_dir', 'run', cwd=tmp_path)
    for line in running.stderr:
        if 'step 20 of' in line:
            break
    running.send_signal(signal.SIGINT)
    status, _, stderr = finish(running)
    assert status != 0
    step, = [int(line.split()[3][:-1]) for line in stderr
             if line.startswith('[0]<stderr>:stopped after step')]
    assert checkpoint_steps(str(tmp_path / 'run'))[0] == step
    assert '[0]<stderr>:horovodrun -np 2 %s %s --resume run --horovod' % (
        sys.executable, SCRIPT) in stderr


@needs_horovod
def test_only_rank_0_fetches(mnist_dir, serve, tmp_path):
    asked = []

    def answer(handler, name):
        asked.append(name)
        with open(os.path.join(mnist_dir, name), 'rb') as f:
            send(handler, f.read())

    status, stdout, stderr = finish(begin(
        2, '--horovod', '--mirror', serve(answer), '--steps', 2, '--hidden_size',
        8, '--dynamic_rnn', '--run_dir', 'run', cwd=tmp_path))
    assert status == 0, stderr
    assert asked == list(mnist_files.FILES)


def fails(workers, *flags, cwd, **settings):
    """Return the error lines of a run that must fail, without [rank]."""
    status, stdout, stderr = finish(begin(workers, *flags, cwd=cwd, **settings))
    assert status != 0 and 'test accuracy' not in '\n'.join(stdout)
    return [line.split('>:', 1)[1] for line in stderr if '>:error: ' in line]


@needs_horovod
def test_one_error_line_when_no_mirror_answers(tmp_path):
    line, = fails(2, '--horovod', '--mirror', 'http://127.0.0.1:9/', cwd=tmp_path)
    assert line.startswith('error: could not fetch MNIST ')
    assert not list(tmp_path.iterdir())


def test_a_batch_that_cannot_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(train_lstm_mnist, 'join', lambda argv: types.SimpleNamespace(
        size=2, rank=0, on_rank0=lambda function: function(),
        quiet=contextlib.nullcontext))
    done = call('train_lstm_mnist.py', '--batch_size', 9, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (1, [
        'error: --batch_size 9 cannot be shared by 2 workers: name a multiple of 2'])
    assert not list(tmp_path.iterdir())


@needs_horovod
def test_horovodrun_without_the_flag(tmp_path):
    status, _, stderr = finish(begin(2, '--dataset', 'digits', cwd=tmp_path))
    assert status != 0
    # The first that ends prints it; horovodrun may kill the other before.
    assert {'[%d]<stderr>:train_lstm_mnist.py: error: 2 workers were begun: add '
            '--horovod, or each of them trains a network of its own' % rank
            for rank in range(2)} & set(stderr)


@pytest.mark.parametrize('variable', ['OMPI_COMM_WORLD_SIZE', 'PMI_SIZE'])
def test_mpirun_without_the_flag(variable, monkeypatch, tmp_path):
    """The variable stands in for mpirun."""
    monkeypatch.setenv(variable, '3')
    done = call('train_lstm_mnist.py', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        'train_lstm_mnist.py: error: 3 workers were begun: add --horovod, or each '
        'of them trains a network of its own')


@pytest.mark.parametrize('value', ['', 'many', '-1', '1'])
def test_a_variable_of_mpi_that_counts_no_workers(value, monkeypatch):
    monkeypatch.setenv('PMI_SIZE', value)
    assert launched() == 1


@needs_horovod
def test_mpirun_with_a_horovod_that_is_built_without_mpi(tmp_path):
    done = run('train_lstm_mnist.py', '--horovod', cwd=tmp_path,
               OMPI_COMM_WORLD_SIZE='2')
    assert (done.returncode, done.error_lines) == (1, [
        'error: 2 workers were begun, but Horovod sees only one, as it is built '
        'without MPI: begin them with horovodrun'])


def test_horovod_is_missing(tmp_path):
    (tmp_path / 'horovod.py').write_text('raise ImportError("not here")')
    done = run('train_lstm_mnist.py', '--horovod', cwd=tmp_path,
               PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert done.error_lines == [
        'error: --horovod: Horovod is missing (not here): run make horovod, or '
        'HOROVOD_WITH_TENSORFLOW=1 pip install --no-build-isolation '
        'horovod==0.28.1']
    with open(os.path.join(ROOT, 'requirements', 'horovod.txt')) as f:
        assert 'horovod==0.28.1 ' in f.read()


def test_a_process_has_the_threads_of_its_share_and_one_gpu(monkeypatch):
    """Hvd stands in for Horovod, and keeps the config of the session."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '-1')  # changed by join
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(64)))
    given = []

    class Hvd(object):
        @staticmethod
        def broadcast_object(result, session, name):
            given.append(session._config)
            return result

    Hvd.init = Hvd.rank = Hvd.local_rank = lambda: 0
    Hvd.size, Hvd.local_size = lambda: 32, lambda: 16
    horovod = types.ModuleType('horovod')
    horovod.tensorflow = Hvd
    monkeypatch.setitem(sys.modules, 'horovod', horovod)
    monkeypatch.setitem(sys.modules, 'horovod.tensorflow', Hvd)
    assert join(['--horovod']).on_rank0(lambda: 'result') == 'result'
    assert [(config.intra_op_parallelism_threads, config.inter_op_parallelism_threads,
             config.device_count['GPU']) for config in given] == [(4, 4, 0)]
    Hvd.local_rank = lambda: 1
    for gpus, own in ((None, '1'), ('5,GPU-2f,7', 'GPU-2f'), ('0,', ''),
                      ('3', '3'), ('MIG-1f', 'MIG-1f'), ('', '')):  # a cluster gave one
        monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
        if gpus is not None:
            monkeypatch.setenv('CUDA_VISIBLE_DEVICES', gpus)
        join(['--horovod', '--device', 'cpu'])
        assert os.environ['CUDA_VISIBLE_DEVICES'] == own


def test_data_that_differs_from_that_of_rank_0(monkeypatch, made_up_dir, tmp_path):
    """Hvd stands in for Horovod: rank 0 broadcasts another sha256."""
    class Hvd(object):
        @staticmethod
        def broadcast_object(result, session, name):
            return [['0' * 64]] if isinstance(result[0], list) else result

    Hvd.rank, Hvd.size, Hvd.local_size = lambda: 0, lambda: 2, lambda: 1
    Hvd.DistributedOptimizer = lambda optimizer: optimizer
    flags = train_lstm_mnist.parse_flags([
        '--data_dir', str(made_up_dir), '--hidden_size', '8', '--dynamic_rnn',
        '--run_dir', str(tmp_path / 'run'), '--horovod'])
    with pytest.raises(UserError) as error, Run(flags, Workers(Hvd)) as run:
        train_lstm_mnist.train(flags, run)
    assert str(error.value) == (
        '%s does not hold the files that rank 0 reads: use --data_dir to name the '
        'folder that holds them' % made_up_dir)
    assert not (tmp_path / 'run').exists()
