"""The environment: variables, streams, limits, the processor."""
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
import threading

import pytest
import tensorflow as tf
from conftest import QUICK, ROOT, call, run

from training import environment
from training.errors import UserError
from training.flags import run_folder
from training.run_directory import checkpoint_steps

SCRIPT = 'train_lstm_mnist.py'
# Variables that have to be removed, with a value that does harm.
HARMFUL = {'TF2_BEHAVIOR': '1', 'TF_ENABLE_WHILE_V2': '1', 'TF_ENABLE_COND_V2': '1',
           'TF_ENABLE_CONTROL_FLOW_V2': '1', 'TF_ENABLE_TENSOR_ARRAY_V2': '1',
           'TF_FORCE_GPU_ALLOW_GROWTH': 'false', 'XLA_FLAGS': '--of_jax',
           'TF_XLA_FLAGS': '--tf_xla_enable_xla_devices', 'TQDM_MININTERVAL': 'x'}


def table():
    """Return {variable: what happens} of the page."""
    with open(os.path.join(ROOT, 'docs/trouble.md')) as f:
        rows = re.findall(r'^\| (`.*?) \| (.*?) \| (.*) \|$', f.read(), re.M)
    return {name.replace('*', 'X'): what for names, _, what in rows
            for name in re.findall(r'`(.+?)`', names)}


def test_the_page_lists_what_is_removed():
    removed = {name for name, what in table().items() if what.startswith('removed: ')}
    assert all(map(environment.REMOVED.fullmatch, removed)) and len(removed) == 6
    for name in HARMFUL:
        assert {name, re.sub('_[A-Z]+$', '_X', name),
                re.sub('E_.+_V2$', 'E_X_V2', name)} & removed, name
    assert set(environment.NAMED) <= set(table())
    assert not environment.REMOVED.fullmatch('TF_CPP_MIN_LOG_LEVEL')


def test_harmful_variables_change_nothing(tmp_path):
    """Also python -W error, python -I, and another program's TensorFlow settings."""
    def transcript(prefix=(), **env):
        shutil.rmtree(str(tmp_path / 'run'), ignore_errors=True)
        done = run(SCRIPT, *QUICK, '--steps', 20, '--run_dir', 'run', cwd=tmp_path,
                   prefix=prefix, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout, re.sub(r'[\d.]+ steps/s', '', done.stderr)

    usual = transcript()
    assert transcript(PYTHONWARNINGS='error', **HARMFUL) == usual
    assert transcript(['sh', '-c', 'python=$1; shift; "$python" -I "$@"', '']) == usual


@pytest.mark.parametrize('given, found', [({}, str(2 ** 32)),
                                          ({'CUDA_CACHE_MAXSIZE': '9'}, '9')])
def test_the_cache_of_the_driver_is_large_enough_for_tensorflow(given, found):
    code = ('import os; import training.environment\n'
            'print(os.environ["CUDA_CACHE_MAXSIZE"])')
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          cwd=ROOT, env=dict(os.environ, **given))
    assert done.stdout.decode() == found + '\n'


def broken(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return str(folder)


@pytest.mark.parametrize('variable, value', [
    ('PYTHONPATH', lambda folder: broken(
        folder, 'numpy/__init__.py', 'raise ImportError("not for this Python")')),
    ('PYTHONPATH', lambda folder: broken(
        folder, 'google/protobuf/__init__.py', 'raise TypeError("protobuf 4")')),
    ('PYTHONPATH', lambda folder: broken(
        folder, 'tensorflow/__init__.py', '__version__ = "2.11.0"')),
    ('PYTHONOPTIMIZE', lambda folder: '2'),
    ('LD_LIBRARY_PATH', lambda folder: broken(folder / 'lib', 'libstdc++.so.6', ''))])
def test_a_variable_that_keeps_tensorflow_away_is_named(variable, value, tmp_path):
    done = run(SCRIPT, *QUICK, '--run_dir', tmp_path / 'run',
               **{variable: value(tmp_path / 'of_others')})
    assert done.returncode == 1
    line, = done.error_lines
    assert line.startswith('error: TensorFlow 1.15 is needed (')
    assert line.endswith('): unset %s, and it can be imported' % variable)


def test_without_tensorflow_no_variable_is_to_blame(monkeypatch):
    monkeypatch.setattr(tf, '__version__', '2.11.0')
    monkeypatch.setenv('PYTHONPATH', '/somewhere')
    monkeypatch.setattr(environment.subprocess, 'call', lambda *args, **kwargs: 1)
    with pytest.raises(UserError) as caught:
        environment.import_tensorflow()
    assert str(caught.value) == (
        'TensorFlow 1.15 is needed (this is 2.11.0): in a Python 3.7, pip install -r '
        'requirements.txt, or use make train')


def test_a_user_without_a_home_folder_has_one(monkeypatch):
    def nobody(uid):
        raise KeyError('getpwuid(): uid not found: %d' % uid)

    monkeypatch.delenv('HOME')
    environment.clean()
    assert 'HOME' not in os.environ
    monkeypatch.setattr(pwd, 'getpwuid', nobody)
    environment.clean()
    assert os.environ['HOME'] == '/'


@pytest.mark.parametrize('closed', ['2>&-', '<&- >&- 2>&-'])
def test_a_run_with_closed_streams_is_whole(closed, tmp_path):
    done = subprocess.run(
        '"%s" "%s" %s --steps 20 --run_dir run %s' % (
            sys.executable, os.path.join(ROOT, SCRIPT), ' '.join(QUICK), closed),
        shell=True, cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 0
    assert checkpoint_steps(str(tmp_path / 'run')) == [20]
    assert json.loads((tmp_path / 'run/result.json').read_text())['steps'] == 20
    assert (tmp_path / 'run/.lock').read_bytes() == b''


def test_closed_streams_get_no_other_file():
    code = ('import os, training.environment\n'
            'os.write(os.open("log", os.O_CREAT | os.O_RDWR), bytes([len(os.listdir('
            '"/proc/self/fd"))]))\n'
            'assert [os.readlink("/proc/self/fd/%d" % n) for n in range(3)] '
            '== ["/dev/null"] * 3')
    assert subprocess.call('"%s" -c \'%s\' <&- >&- 2>&-' % (
        sys.executable, code), shell=True, cwd='/tmp', env=dict(
            os.environ, PYTHONPATH=ROOT)) == 0


def test_clusters_signals_stop_a_run():
    assert [number.name for number in environment.SIGNALS] == [
        'SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGXCPU']


# Limits. A tree of files stands in for /sys/fs/cgroup.

def cgroups(tmp_path, monkeypatch, own, files):
    (tmp_path / 'own').write_text(own)
    for name, text in files.items():
        path = tmp_path / 'fs' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(environment, 'OWN_CGROUPS', str(tmp_path / 'own'))
    monkeypatch.setattr(environment, 'CGROUPS', str(tmp_path / 'fs'))


GIB = 2 ** 30
V1 = '5:cpuset:/job\n4:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n0::/\n'
V2 = '0::/slurm/job/step\n'


@pytest.mark.parametrize('own, files, cores, gib', [
    (V2, {}, 64, None),
    (V2, {'slurm/job/step/cpu.max': 'max 100000\n', 'slurm/job/memory.max': 'max\n'},
     64, None),
    (V2, {'slurm/job/cpu.max': '50000 100000\n', 'slurm/memory.max': '%d\n' % (2 * GIB),
          'slurm/job/step/memory.max': '%d\n' % (3 * GIB)}, 1, 2),
    (V2, {'cpu.max': '250000 100000', 'memory.max': '%d' % GIB}, 3, 1),
    (V1, {'cpu/cpu.cfs_quota_us': '-1\n', 'cpu/cpu.cfs_period_us': '100000\n',
          'memory/memory.limit_in_bytes': '9223372036854771712\n'}, 64, None),
    (V1, {'cpu/docker/1/cpu.cfs_quota_us': '800000\n',
          'cpu/docker/1/cpu.cfs_period_us': '200000\n',
          'memory/docker/memory.limit_in_bytes': '%d\n' % GIB}, 4, 1),
    # In a container, its own cgroup is mounted without the path.
    (V1, {'cpu/cpu.cfs_quota_us': '1\n', 'cpu/cpu.cfs_period_us': '100000\n',
          'memory/memory.limit_in_bytes': '%d\n' % GIB}, 1, 1)])
def test_limits_of_cgroups_are_read(own, files, cores, gib, tmp_path, monkeypatch):
    cgroups(tmp_path, monkeypatch, own, files)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: set(range(64)))
    assert environment.cores() == cores
    def bytes_of(name, path):
        with open(path) as f:
            return 1024 * int(re.search(name + r':\s+(\d+)', f.read())[1])

    free = environment.free_memory()
    if gib is None:
        assert 0 < free < bytes_of('MemTotal', '/proc/meminfo')
    else:
        assert free + bytes_of('VmRSS', '/proc/self/status') == pytest.approx(
            gib * GIB, rel=0.01)


def test_a_container_of_1_gib_tests_in_parts(tmp_path, monkeypatch):
    cgroups(tmp_path, monkeypatch, V2, {})
    seen, run_session = [], tf.Session.run

    def result(name):
        del seen[:]
        assert call(SCRIPT, *QUICK, '--steps', 60, '--run_dir',
                    tmp_path / name).returncode == 0
        return json.loads((tmp_path / name / 'result.json').read_text())[
            'test_accuracy'], max(seen)

    def run_and_see(self, fetches, feed_dict=None, **more):
        seen.extend(fed for fed in (feed_dict or {}).values() if type(fed) is int)
        return run_session(self, fetches, feed_dict, **more)

    monkeypatch.setattr(tf.Session, 'run', run_and_see)
    monkeypatch.setattr('training.metrics.PART', 200)
    accuracy, most = result('usual')
    assert most == 360
    cgroups(tmp_path, monkeypatch, V2, {'memory.max': '%d' % (1 << 20)})
    assert result('small') == (accuracy, 200)


def test_a_limit_on_threads_is_an_error_and_not_an_abort(monkeypatch):
    started, start = [], threading.Thread.start

    def start_some(thread):
        if len(started) == 9:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, 'start', start_some)
    with pytest.raises(UserError, match='threads that it needs: raise ulimit -u'):
        environment.import_tensorflow()
    for thread in started:
        thread.join(300)
        assert not thread.is_alive()


# Names.

def test_a_run_directory_that_tensorflow_names_otherwise_is_refused(monkeypatch):
    assert run_folder('\u6570') == '\u6570'
    monkeypatch.setattr(os, 'fsencode', lambda name: name.encode('gbk'))
    assert run_folder('run') == 'run'
    with pytest.raises(Exception, match='must be in UTF-8.*: set LC_ALL=C.UTF-8'):
        run_folder('\u6570')


def test_a_folder_of_data_may_have_any_name(made_up_dir, tmp_path):
    """As one from a zip that was packed under GBK."""
    named = os.path.join(os.fsencode(str(tmp_path)), b'\xca\xfd')
    os.rename(str(made_up_dir), named)
    done = call(SCRIPT, '--data_dir', os.fsdecode(named), *QUICK[2:], '--steps', 2,
                '--run_dir', tmp_path / 'run')
    assert done.returncode == 0 and '\\udcca\\udcfd' in done.stdout
    assert 'test image 0: ' in call('predict.py', tmp_path / 'run', '--test', 0).stdout


# The machine.

def test_a_processor_without_avx_is_refused_before_the_import(monkeypatch):
    assert environment.processor_problem() is None
    real = environment.CPUID_1_ECX
    # and eax, ~AVX; ret
    monkeypatch.setattr(environment, 'CPUID_1_ECX',
                        real[:-1] + bytes.fromhex('25 ffffffef c3'))
    assert 'needs a processor with AVX' in environment.processor_problem()
    with pytest.raises(UserError, match='AVX'):
        environment.import_tensorflow()
    monkeypatch.setattr(environment.platform, 'machine', lambda: 'aarch64')
    assert 'this is aarch64: use another machine' in environment.processor_problem()


def test_musl_is_refused(monkeypatch):
    monkeypatch.setattr(sysconfig, 'get_config_var', {
        'HOST_GNU_TYPE': 'x86_64-alpine-linux-musl'}.get)
    assert environment.processor_problem() == (
        'TensorFlow 1.15 needs glibc, and this system has musl: use another one, such '
        'as Debian or Ubuntu')


@pytest.mark.parametrize('variables, is_refused', [
    ({'all_proxy': 'socks5://127.0.0.1:1080'}, True),
    ({'ALL_PROXY': 'SOCKS5h://127.0.0.1:1080'}, True),
    ({'https_proxy': 'socks4://127.0.0.1:1080'}, True),
    ({'https_proxy': 'http://127.0.0.1:80', 'all_proxy': 'socks5://h'}, False),
    ({'http_proxy': 'socks5://h'}, False), ({}, False)])
def test_a_socks_proxy_is_refused_before_anything_is_installed(variables, is_refused):
    done = subprocess.run(
        [sys.executable, '-m', 'training.environment'], cwd=ROOT,
        stderr=subprocess.PIPE, universal_newlines=True, env=dict(
            {name: value for name, value in os.environ.items()
             if not name.lower().endswith('_proxy')}, **variables))
    assert (done.returncode, done.stderr) == ((1, (
        'error: pip and requests cannot use the SOCKS proxy %s: set http_proxy and '
        'https_proxy to the HTTP address of your proxy, such as http://127.0.0.1:7890, '
        'or unset the variable that names it\n' % [*variables.values()][0]))
        if is_refused else (0, ''))
