"""The Makefile and the tools that it calls, in a copy of the project.

Most tests put a stand-in in place of Python. It writes down what it is asked to run.
"""
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pkg_resources
import pytest
from conftest import LIMIT, NOWHERE, ROOT

# It claims to be a Python 3.7, makes a .venv whose python is itself, and exits with
# the status in the file named after the script that it is asked to run.
STAND_IN = '''#!/bin/sh
echo "$@" >> log
case "$1 $2" in
"-c import bz2, ctypes"*) echo "$0";;
"-m training.environment") test ! -e old.processor;;
"-m venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python;;
*) test ! -f "$1.status" || exit $(cat "$1.status");;
esac
'''
# It makes a .python, as uv does, from the file uv.python beside it.
STAND_IN_UV = '''#!/bin/sh
echo "$UV_PYTHON_INSTALL_DIR $UV_CACHE_DIR $*" >> uv.log
case "$*" in
*install*) mkdir -p .python/3.7/bin && cp "$0.python" .python/3.7/bin/python3.7;;
*) echo .python/3.7/bin/python3.7;;
esac
'''


@pytest.fixture
def project(tmp_path):
    """A copy of the project, with a PATH that has no Python."""
    for name in ('Makefile', 'requirements.txt', 'data.py', 'model.py',
                 'train_lstm_mnist.py'):
        shutil.copy2(os.path.join(ROOT, name), str(tmp_path))
    for name in ('bench', 'reading', 'requirements', 'tools', 'training'):
        shutil.copytree(os.path.join(ROOT, name), str(tmp_path / name))
    (tmp_path / 'bin').mkdir()
    for tool in ('mkdir', 'cp', 'cat', 'touch', 'grep', 'date', 'rm', 'echo'):
        (tmp_path / 'bin' / tool).symlink_to(shutil.which(tool))
    return tmp_path


@pytest.fixture
def with_python(project):
    """The project with the stand-in as python3.7 on the PATH."""
    write(project / 'bin' / 'python3.7', STAND_IN)
    return project


def write(path, script):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script)
    path.chmod(0o755)


def write_environment(project, script):
    """Write a finished .venv whose python is a script."""
    write(project / '.venv' / 'bin' / 'python', script)
    (project / '.venv' / 'installed').write_text('')


def make(project, *args, **env):
    return subprocess.run(
        [shutil.which('make'), *args], cwd=str(project), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=LIMIT,
        env={'PATH': str(project / 'bin'), 'HOME': str(project / 'home'), **env})


def calls(project):
    """Return the arguments of all calls of the stand-in."""
    return (project / 'log').read_text().splitlines()


# Making .venv.

@pytest.mark.parametrize('place', [
    'bin/python3.7', 'bin/python', 'home/.pyenv/versions/3.7.16/bin/python',
    'uv/python', 'named/python'])
def test_python_is_found_and_packages_are_installed_once(place, project):
    python = project / place
    write(python, STAND_IN)
    if place.startswith('uv'):
        write(project / 'bin' / 'uv', '#!/bin/sh\n'
              '[ "$*" = "python find --system 3.7" ] && echo %s\n' % python)
    named = ['PYTHON=%s' % python] if place.startswith('named') else []
    done = make(project, 'test', *named)
    assert done.returncode == 0, done.stderr
    assert 'Making .venv with %s' % python in done.stderr
    asked = calls(project)[1:]
    assert asked == [
        '-m training.environment',
        '-m venv --clear .venv',
        '-m pip install --quiet -r /dev/stdin',
        '-m pip install -r requirements/tests.txt',
        '-c import hypothesis, matplotlib, PIL, pooch, pytest, sklearn, tensorflow, '
        'tqdm',
        '-m pytest -n 3 --dist worksteal']
    make(project, 'test', *named)
    assert calls(project)[1:] == asked + asked[-1:]


def test_without_avx_nothing_is_installed(with_python):
    (with_python / 'old.processor').write_text('')
    done = make(with_python, 'train')
    assert done.returncode != 0
    assert calls(with_python)[1:] == ['-m training.environment']


@pytest.mark.parametrize('module', ['ssl', 'ctypes', 'ensurepip', 'bz2', 'lzma'])
def test_a_python_without_what_is_needed_is_passed_over(module, project):
    """One that was built without the headers of a library."""
    write(project / 'bin' / 'python3.7', '#!/bin/sh\nexec %s -c "import sys; '
          'sys.modules[\'%s\'] = None; $2"\n' % (sys.executable, module))
    good = project / 'home/.pyenv/versions/3.7.16/bin/python'
    write(good, STAND_IN)
    done = make(project, 'test')
    assert done.returncode == 0 and 'Making .venv with %s' % good in done.stderr


# What must not reach pip, uv, pytest or a shell, and what says where to fetch from.
REMOVED = dict.fromkeys((
    'PIP_TARGET', 'PIP_PREFIX', 'PIP_CONSTRAINT', 'PIP_NO_DEPS', 'PIP_NO_BINARY',
    'UV_PYTHON_DOWNLOADS', 'UV_OFFLINE', 'PYTEST_ADDOPTS',
    'PYTEST_DISABLE_PLUGIN_AUTOLOAD', 'PYTHONHOME', 'PYTHONINSPECT', 'PYTHONOPTIMIZE',
    'PYTHONWARNINGS', 'CDPATH', 'GREP_OPTIONS'), 'x')
KEPT = dict.fromkeys((
    'PIP_INDEX_URL', 'PIP_TRUSTED_HOST', 'PIP_CONFIG_FILE', 'UV_PYTHON_INSTALL_MIRROR',
    'HTTPS_PROXY', 'LD_LIBRARY_PATH'), 'y')


def test_variables_of_the_user_do_not_reach_what_make_calls(with_python):
    write(with_python / 'bin' / 'python3.7', STAND_IN.replace(
        'case', '/usr/bin/env | grep -v ^_= >> env\ncase', 1))
    done = make(with_python, 'test', PIP_USER='1', PYTHONPATH='elsewhere', **REMOVED,
                **KEPT)
    assert done.returncode == 0, done.stderr
    seen = (with_python / 'env').read_text().splitlines()
    assert not {'%s=x' % name for name in REMOVED} & set(seen)
    assert {'%s=y' % name for name in KEPT} <= set(seen)
    # find_python sets PYTHONPATH for training.environment.
    assert {line for line in seen if line.startswith(('PIP_USER', 'PYTHONPATH'))} == {
        'PIP_USER=0', 'PYTHONPATH=tools/..'}


def test_a_user_without_a_home_folder_gets_one(with_python):
    write(with_python / 'bin' / 'python3.7', STAND_IN.replace(
        'case', 'echo "$HOME" >> home.log\ncase', 1))
    done = subprocess.run(
        [shutil.which('make'), 'test'], cwd=str(with_python), stderr=subprocess.PIPE,
        env={'PATH': str(with_python / 'bin')})
    assert done.returncode == 0, done.stderr
    assert set((with_python / 'home.log').read_text().split()) == {'/'}


def test_a_python_is_fetched_though_cdpath_and_uv_are_set(project):
    write(project / '.uv' / 'bin' / 'uv', STAND_IN_UV)
    write(project / '.uv' / 'bin' / 'uv.python', STAND_IN)
    write(project / 'other' / 'tools' / 'file', '')
    done = make(project, 'test', CDPATH='.:%s' % (project / 'other'),
                UV_PYTHON_DOWNLOADS='never')
    assert done.returncode == 0, done.stderr
    assert not (project / 'other' / '.python').exists()


def test_a_failed_installation_is_an_error_line(with_python):
    (with_python / '-m.status').write_text('1')
    done = make(with_python, 'test')
    assert done.returncode != 0
    assert done.stderr.splitlines()[-2] == (
        'error: .venv could not be made: see the lines above, and fix that or a '
        'setting that pip config list shows')


def test_the_settings_of_a_repository_around_this_one_are_not_taken(tmp_path):
    (tmp_path / 'pytest.ini').write_text('[pytest]\naddopts = --nonsense\n')
    (tmp_path / 'conftest.py').write_text('raise RuntimeError')
    inner = tmp_path / 'inner'
    inner.mkdir()
    for name in ('pytest.ini', 'data.py'):
        shutil.copy2(os.path.join(ROOT, name), str(inner))
    for name in ('tests', 'training'):
        shutil.copytree(os.path.join(ROOT, name), str(inner / name))
    (inner / 'tests' / 'test_it.py').write_text('def test_it(): pass')
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-k', 'test_it.py', '--collect-only', '-q',
         'tests/test_it.py'], cwd=str(inner), stdout=subprocess.PIPE)
    assert done.returncode == 0 and b'tests/test_it.py::test_it' in done.stdout


def test_tools_need_no_run_bit(with_python):
    for tool in (with_python / 'tools').iterdir():
        tool.chmod(0o644)
    assert make(with_python, 'test').returncode == 0


def test_a_clone_has_unix_line_ends_whatever_git_is_set_to(tmp_path):
    if not os.path.exists(os.path.join(ROOT, '.git')) or not shutil.which('git'):
        pytest.skip('not a clone')
    subprocess.run(['git', 'clone', '--quiet', '--config', 'core.autocrlf=true', ROOT,
                    str(tmp_path / 'clone')], check=True)
    for name in ('Makefile', 'tools/find_python', 'train_lstm_mnist.py'):
        assert b'\r' not in (tmp_path / 'clone' / name).read_bytes()


def test_a_named_python_that_is_not_3_7_is_an_error(with_python):
    write(with_python / 'other', '#!/bin/sh\nexit 0\n')
    done = make(with_python, 'train', 'PYTHON=./other')
    assert done.returncode != 0
    assert done.stderr.startswith(
        'error: PYTHON=./other is not a Python 3.7 with the modules bz2, ctypes, '
        'ensurepip, lzma, ssl and zlib. TensorFlow 1.15 does not run ')
    assert not (with_python / '.venv').exists() and not (with_python / 'log').exists()


# A newer python3 that may lack ensurepip or pip. Its pip installs the uv stand-in.
NEWER_PYTHON = '''#!/bin/sh
echo "$*" >> python3.log
case "$*" in
"-c import ensurepip"|"-c import pip") [ -e "has ${{2#import }}" ];;
"-c "*) exec {python} -c "import sys; sys.version_info = 3, 8; $2";;
"-m venv "*) mkdir -p .uv/bin && cp "$0" .uv/bin/python;;
"-m pip "*) [ -e network ] && mkdir -p .uv/bin && cp uv uv.python .uv/bin;;
esac
'''.format(python=sys.executable)
PIP = ('-m pip install %s--quiet --no-cache-dir --disable-pip-version-check '
       '--require-hashes -r /dev/stdin')


@pytest.mark.parametrize('has, said', [
    (['pip'], []), (['ensurepip'], []),  # but no network
    ([], ['python3 has neither venv nor pip. To get them: apt install python3-venv'])])
def test_without_python_3_7_the_error_tells_how_to_install_it(has, said, project):
    write(project / 'bin' / 'python3', NEWER_PYTHON)
    for name in has:
        write(project / ('has ' + name), '')
    done = make(project, 'test')
    assert done.returncode != 0
    assert done.stderr.splitlines()[:2 + len(said)] == [
        'No Python 3.7 was found. Fetching uv 0.6.17 (17 MB) into .uv, and with it '
        'CPython 3.7.9 into .python.', *said,
        'error: no Python 3.7 with the modules bz2, ctypes, ensurepip, lzma, ssl and '
        'zlib was found on the PATH, in %s or by uv, and '
        'none could be fetched. TensorFlow 1.15 does not run on a newer Python. To '
        'install 3.7:' % (project / 'home/.pyenv')]
    for way in ('uvx uv@0.6.17 python install 3.7.9', 'pyenv install 3.7',
                'conda create -n py37 python=3.7', 'deadsnakes'):
        assert way in done.stderr
    assert not (project / '.venv').exists() and not (project / '.python').exists()


@pytest.mark.parametrize('has, asks', [
    ('ensurepip', ['-c import ensurepip', '-m venv .uv', PIP % '']),
    ('pip', ['-c import ensurepip', '-c import pip', PIP % '--target .uv '])])
def test_a_python_is_fetched_with_venv_or_with_pip(has, asks, project):
    for name, script in (('bin/python3', NEWER_PYTHON), ('uv', STAND_IN_UV),
                         ('uv.python', STAND_IN), ('has ' + has, ''), ('network', '')):
        write(project / name, script)
    write(project / '.uv' / 'half', '')  # of a fetch that failed
    done = make(project, 'test')
    assert done.returncode == 0, done.stderr
    assert (project / 'python3.log').read_text().splitlines()[1:] == [
        '-m training.environment', *asks]
    assert not (project / '.uv' / 'half').exists()
    assert '-m pytest -n 3 --dist worksteal' in calls(project)


def test_a_python_is_fetched_once(project):
    write(project / '.uv' / 'bin' / 'uv', STAND_IN_UV)
    write(project / '.uv' / 'bin' / 'uv.python', STAND_IN)
    for _ in range(2):
        done = make(project, 'test')
        assert done.returncode == 0, done.stderr
        assert (project / 'uv.log').read_text().splitlines() == [
            '%s/.python %s/.uv/cache --no-config python %s 3.7.9'
            % (project, project, what) for what in ('install', 'find')]
        assert calls(project).count('-m venv --clear .venv') == 1
    # The fetched Python is used again if .venv is gone.
    shutil.rmtree(str(project / '.venv'))
    assert make(project, 'test').returncode == 0
    assert len((project / 'uv.log').read_text().splitlines()) == 2


def test_a_venv_that_is_broken_is_made_again(with_python):
    for broken in ('-m.status', '-c.status'):  # pip fails, or an import
        (with_python / broken).write_text('1')
        assert make(with_python, 'test').returncode != 0
        assert '-m pytest' not in ' '.join(calls(with_python))
        (with_python / broken).unlink()
    assert make(with_python, 'test').returncode == 0
    (with_python / '.venv' / 'bin' / 'python').unlink()
    assert make(with_python, 'test').returncode == 0
    assert calls(with_python).count('-m venv --clear .venv') == 4


def test_the_installed_packages_are_the_locked_ones():
    packages = {}
    for lock in ['tests', *['horovod'] * bool(importlib.util.find_spec('horovod'))]:
        with open(os.path.join(ROOT, 'requirements', lock + '.txt')) as f:
            for package in re.split(r'^(?=\w)', f.read(), flags=re.M)[1:]:
                name, version = re.match(
                    r'([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}',
                    package).groups()
                assert packages.setdefault(name, version) == version
    assert len(packages) > 40
    for name, version in packages.items():
        installed = pkg_resources.get_distribution(name)
        assert pkg_resources.parse_version(version) == installed.parsed_version
        assert not [needed for needed in installed.requires()
                    if needed.key not in packages]


def test_lint_fails_if_the_requirements_changed_after_the_locks(project):
    def check():
        done = subprocess.run([str(project / 'tools' / 'lock'), '--check'],
                              stderr=subprocess.PIPE, universal_newlines=True)
        return done.returncode, done.stderr

    assert check() == (0, '')
    with open(str(project / 'requirements.txt'), 'a') as f:
        f.write('tqdm==4.67.0\n')
    assert check() == (1, 'error: requirements/tests.txt does not match '
                       'requirements.txt and requirements/*.in: run make lock\n')


# What the targets call.

@pytest.mark.parametrize('status, trains', [
    (0, 'train_lstm_mnist.py --data_dir MNIST_data --seed 1'),
    (1, None),
    (2, None),
    (3, 'train_lstm_mnist.py --dataset digits --seed 1')])
def test_train_uses_the_digits_only_if_mnist_cannot_be_fetched(
        status, trains, with_python):
    (with_python / 'data.py.status').write_text(str(status))
    done = make(with_python, 'train', 'MIRROR=http://m/?a&b', 'FLAGS=--seed 1')
    assert (done.returncode == 0) == (trains is not None)
    asked = calls(with_python)
    asked = asked[asked.index('data.py MNIST_data http://m/?a&b') + 1:]
    assert asked == ([trains] if trains else [])
    assert ('NOT on MNIST' in done.stderr) == (status == 3)


@pytest.mark.parametrize('flag, variables, passes', [
    ('--dataset digits', [], ''), ('--data_dir=there', [], ''),
    ('--steps 1', ["DATA_DIR=it's  here"], "--data_dir it's  here "),
    ('--mirror http://m/', ['DATA_DIR=d'], '--data_dir d '), ('--resume r', [], ''),
    ('--resume=r', ['DATA_DIR=d', 'MIRROR=m'], '--data_dir d --mirror m '),
    ('', ['DATA_DIR=/d/us$d $(it)'], '--data_dir /d/us$d $(it) '),
    ('--run_dir runs/a$b', ['DATA_DIR=d'], '--data_dir d ')])
@pytest.mark.parametrize('in_environment', [False, True])
def test_the_digits_never_replace_data_that_is_named(
        flag, variables, passes, in_environment, project):
    write_environment(project, STAND_IN)
    (project / 'train_lstm_mnist.py.status').write_text('1')
    variables = [*variables, 'FLAGS=--seed 1 ' + flag]
    done = (make(project, 'train', **dict(text.split('=', 1) for text in variables))
            if in_environment else make(project, 'train', *variables))
    assert done.returncode != 0 and 'MNIST' not in done.stderr
    assert calls(project)[1:] == [
        ('train_lstm_mnist.py %s--seed 1 %s' % (passes, flag)).strip()]


def test_a_dollar_is_a_dollar(project):
    write_environment(project, STAND_IN)
    assert make(project, 'train', 'DATA_DIR=d',
                "FLAGS=--run_dir 'runs/a$b c'").returncode == 0
    assert calls(project)[1:] == [
        'train_lstm_mnist.py --data_dir d --run_dir runs/a$b c']
    assert make(project, 'photos', 'PHOTOS=p$q', 'RUNS=runs/a$b').returncode == 0
    assert calls(project)[-1] == '-m bench.photos p$q runs/a$b'


@pytest.mark.parametrize('flags, peers', [
    ('', ['torch']), ('step', ['torch']), ('peers', ['torch', 'keras', 'jax'])])
def test_peers_are_installed_when_they_are_named(flags, peers, project):
    write_environment(project, STAND_IN)
    write(project / 'bin' / 'python3', '#!/bin/sh\n[ "$1" = install ] || {\n'
          'mkdir -p $4/bin && cp "$0" $4/bin/pip; exit; }\necho "$0" >> log\n')
    for _ in range(2):
        done = make(project, 'bench', 'DATA_DIR=d', 'FLAGS=' + flags)
        assert (done.returncode, done.stdout) == (0, '')
        assert 'note' not in done.stderr
    benches = 2 * [('-m bench --data_dir d ' + flags).strip()]
    assert calls(project) == [
        '.venv-%s/bin/pip' % peer for peer in peers] + benches


@pytest.mark.parametrize('variables, calls_cuda', [
    ([], '--if-gpu .venv'), (['CUBLAS=10'], '--if-gpu --cublas 10 .venv'),
    (['GPU=0'], None), (['FLAGS=--device cpu'], None),
    (['FLAGS=--seed 1  --device=cpu'], None),
    (['FLAGS=--device gpu'], '--if-gpu .venv')])
def test_train_installs_cuda_if_there_is_a_gpu(variables, calls_cuda, with_python):
    assert make(with_python, 'train', *variables).returncode == 0
    asked = calls(with_python)
    assert asked[-1].startswith('train_lstm_mnist.py --data_dir MNIST_data')
    assert [line for line in asked if 'cuda.py' in line] == (
        ['tools/cuda.py ' + calls_cuda] if calls_cuda else [])


GPU_HINT = ('If it trained on a GPU, see nvidia-smi; if it happens again, add --device '
            'cpu to FLAGS.')


@pytest.mark.parametrize('status, error', [
    (134, 'error: TensorFlow aborted (status 134): see the lines above and dmesg'),
    (139, 'error: TensorFlow aborted (status 139): see the lines above and dmesg'),
    (137, 'error: the training was killed (status 137), probably because there is too '
     'little memory: see dmesg, and the limit of the container or the job'),
    (1, None), (130, None), (138, None)])  # 138: it was stopped by SIGUSR1
@pytest.mark.parametrize('flags, data_status', [
    # On MNIST, of the user's choice, on digits.
    ('', 0), ('--resume r', 0), ('', 3), ('--device cpu', 0), ('--device=cpu', 0)])
def test_train_reports_a_signal(status, error, flags, data_status, project):
    write_environment(project, STAND_IN)
    (project / 'data.py.status').write_text(str(data_status))
    (project / 'train_lstm_mnist.py.status').write_text(str(status))
    done = make(project, 'train', 'GPU=0', 'FLAGS=' + flags)
    assert done.returncode != 0 and 'Error %d' % status in done.stderr
    assert [line for line in done.stderr.splitlines()
            if line.startswith(('error:', 'If '))] == [
        error, *[GPU_HINT] * (status != 137 and 'cpu' not in flags),
        'If the run directory named above has a checkpoint, go on with make train '
        "FLAGS='--resume runs/...'."] * bool(error)


def test_train_on_the_digits_for_real_if_no_mirror_answers(project):
    write_environment(project, '#!/bin/sh\nexec %s "$@"\n' % sys.executable)
    done = make(project, 'train', 'MIRROR=' + NOWHERE,
                'GPU=0', 'FLAGS=--steps 1 --hidden_size 8 --dynamic_rnn --device cpu')
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == '(1257, 784)'
    assert done.stdout.splitlines()[-1].startswith('test accuracy ')
    assert 'note: could not fetch MNIST' in done.stderr and 'error' not in done.stderr
    before, after = done.stderr.split('run directory: ')
    assert before.count('MNIST is not in MNIST_data and could not be fetched') == 1
    assert after.splitlines()[-1] == (
        "This accuracy is on scikit-learn's digits, NOT on MNIST.")
    assert not (project / 'MNIST_data').exists()


@pytest.mark.parametrize('target, asked', [
    ('quick DATA_DIR=d FLAGS=--steps=9', 'train_lstm_mnist.py --data_dir d --quick '
     '--steps=9'),
    ('gpu', 'tools/cuda.py .venv'),
    ('gpu CUBLAS=12', 'tools/cuda.py --cublas 12 .venv'),
    ('check-gpu', 'tools/check_gpu.py'),
    ('tensorboard FLAGS=--port=7', '--logdir runs --host localhost --port=7')])
def test_a_target_calls_its_program(target, asked, project):
    write_environment(project, STAND_IN)
    write(project / '.venv' / 'bin' / 'tensorboard', STAND_IN)
    (project / 'tools/check_gpu.py.status').write_text('1')  # there is no GPU
    assert make(project, *target.split(' ')).returncode == 0
    assert calls(project)[-1] == asked


def test_horovod_is_built_if_its_tools_are_there(with_python):
    for tool in ('cmake', 'c++'):
        done = make(with_python, 'horovod')
        assert done.returncode != 0
        assert done.stderr.splitlines()[-2] == (
            'error: building Horovod needs %s: run apt install cmake g++, or the '
            'like, then make horovod again' % tool)
        write(with_python / 'bin' / tool, '#!/bin/sh\n')
    assert make(with_python, 'horovod').returncode == 0
    assert calls(with_python)[-2:] == [
        '-m pip install --no-build-isolation -r requirements/horovod.txt',
        '-c import horovod.tensorflow']


# It does not train. It writes a result.json whose accuracy tells the seed.
TRAINS = """#!%s
import json, os, sys
if sys.argv[1] == '-m':
    os.execv(sys.executable, [sys.executable] + sys.argv[1:])
flags = dict(zip(sys.argv[2::2], sys.argv[3::2]))
assert sys.argv[1] == 'train_lstm_mnist.py' and flags['--data_dir'] == 'here'
assert flags['--steps'] == '7'
accuracy = 0.8 + int(flags['--seed']) / 100
os.makedirs(flags['--run_dir'])
with open(flags['--run_dir'] + '/result.json', 'w') as f:
    json.dump(dict(test_accuracy=accuracy, validation_accuracy=accuracy / 2), f)
print('test accuracy of a run')
""" % sys.executable


@pytest.mark.parametrize('given, found', [([], ''), (['MNIST_DATA_DIR=here'], 'here')])
def test_the_tests_know_whether_mnist_is_named(given, found, project):
    code = ('import sys; sys.path.insert(0, "tests"); import conftest; '
            'print(conftest.MNIST)')
    write_environment(project, "#!/bin/sh\ncd %s && exec %s -c '%s'\n" % (
        ROOT, sys.executable, code))
    done = make(project, 'test', *given)
    assert done.stdout.splitlines()[-1:] == [found and os.path.join(ROOT, found)]


def test_results_prints_a_table_of_ten_seeds(project):
    write_environment(project, TRAINS)
    done = make(project, 'results', 'DATA_DIR=here', 'FLAGS=--steps 7 --seed 3')
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('test accuracy of a run') == 10
    table = done.stdout.splitlines()
    assert table[:3] == ['| seed | test | validation |', '| --- | --- | --- |',
                         '| 1 | 0.8100 | 0.4050 |']
    assert table[11:] == [
        '| 10 | 0.9000 | 0.4500 |', '| mean | 0.8550 | 0.4275 |',
        '| lowest | 0.8100 | 0.4050 |', '| highest | 0.9000 | 0.4500 |',
        '| standard deviation | 0.0303 | 0.0151 |', '']


def test_tensorboard_takes_the_next_port_and_a_folder_of_its_own(project):
    """Port 6006 may be in use, and /tmp/.tensorboard-info be another user's."""
    tensorboard = os.path.join(os.path.dirname(sys.executable), 'tensorboard')
    write_environment(project, '#!/bin/sh\n')
    write(project / '.venv' / 'bin' / 'tensorboard',
          '#!/bin/sh\nexec %s "$@"\n' % tensorboard)
    (project / 'runs').mkdir()
    with socket.socket() as taken:
        try:
            taken.bind(('127.0.0.1', 6006))
            taken.listen(1)
        except OSError:
            pass  # it is in use already
        running = subprocess.Popen(
            [shutil.which('make'), 'tensorboard'], cwd=str(project),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True,
            env={'PATH': str(project / 'bin'), 'HOME': str(project)},
            start_new_session=True)
        try:
            port = next(re.search(r'http://localhost:(\d+)/', line)[1]
                        for line in running.stderr if line.startswith('TensorBoard '))
            note = project / '.venv' / '.tensorboard-info'
            for _ in range(3000):  # it is written after the line
                if note.is_dir():
                    break
                time.sleep(0.1)
        finally:
            os.killpg(running.pid, signal.SIGTERM)
            running.communicate()
    assert 6006 < int(port) < 6017
    assert note.is_dir()


def test_results_stops_at_a_run_that_fails(project):
    write_environment(project, STAND_IN)
    (project / 'train_lstm_mnist.py.status').write_text('1')
    done = make(project, 'results', 'DATA_DIR=here')
    assert done.returncode != 0 and done.stdout == ''
    assert len(calls(project)) == 1
