"""The Makefile, in a copy of the project.

Where a Python 3.7 is looked for and what is then called, with stand-ins that
write down what they are asked; and `make train` for real on the bundled digits.
"""
import importlib.util
import os
import re
import shutil
import subprocess
import sys

import pkg_resources
import pytest
from conftest import NOWHERE, ROOT

# Is any Python: passes for a 3.7, makes a .venv whose python is itself, and
# ends with the status in the file named after the script that it is to run.
STAND_IN = '''#!/bin/sh
echo "$@" >> {log}
case "$1 $2" in
"-c import os"*) echo {path};;
"-m venv") mkdir -p .venv/bin && cp {path} .venv/bin/python;;
*) test ! -f "$1.status" || exit $(cat "$1.status");;
esac
'''


@pytest.fixture
def project(tmp_path):
    """A copy of the project with an empty PATH and home beside it."""
    for name in ('Makefile', 'requirements.txt', 'data.py', 'model.py',
                 'train_lstm_mnist.py'):
        shutil.copy2(os.path.join(ROOT, name), str(tmp_path))
    for name in ('bench', 'requirements', 'training'):
        shutil.copytree(os.path.join(ROOT, name), str(tmp_path / name))
    tools = tmp_path / 'bin'
    tools.mkdir()
    for tool in ('mkdir', 'cp', 'cat', 'touch', 'grep'):
        (tools / tool).symlink_to(shutil.which(tool))
    return tmp_path


def stand_in(path, log, text=STAND_IN):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(path=path, log=log))
    path.chmod(0o755)


def make(project, *args):
    return subprocess.run(
        [shutil.which('make'), *args], cwd=str(project), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=300,
        env={'PATH': str(project / 'bin'), 'HOME': str(project / 'home')})


@pytest.mark.parametrize('target', ['train', 'test'])
def test_no_python_3_7(target, project):
    stand_in(project / 'bin' / 'python3.7', 'log',
             text='#!/bin/sh\necho not here >&2; exit 127\n')
    stand_in(project / 'bin' / 'python3', 'log', text=(
        '#!/bin/sh\nexec %s -c "import sys; sys.version_info = (3, 8, 0); '
        'exec(sys.argv[1])" "$2"\n' % sys.executable))
    done = make(project, target)
    assert done.returncode != 0
    assert '\nerror: no Python 3.7 was found, and none could be fetched ' in (
        done.stderr)
    for way in ('uvx uv@0.6.17 python install 3.7.9', 'pyenv install 3.7',
                'conda create -n py37 python=3.7', 'deadsnakes'):
        assert way in done.stderr
    assert not (project / '.venv').exists()


@pytest.mark.parametrize('lacks', ['venv', 'pip'])
def test_no_python_3_7_and_nothing_to_fetch_it_with(lacks, project):
    stand_in(project / 'bin' / 'python3', 'log', text=(
        '#!/bin/sh\ncase "$*" in\n"-m %s "*) echo No module named %s >&2; exit 1;;\n'
        '"-m venv "*) mkdir -p .uv/bin && cp {path} .uv/bin/python;;\nesac\n'
        % (lacks, lacks)))
    done = make(project, 'test')
    assert done.returncode != 0
    said = done.stderr.splitlines()
    assert said[:3] == [
        'No Python 3.7 was found. Fetching uv 0.6.17 (17 MB) into .uv, and with it '
        'CPython 3.7.9 into .python.', 'No module named ' + lacks,
        'error: no Python 3.7 was found, and none could be fetched (the last that '
        'TensorFlow 1.15 has wheels for). To get one:']
    assert not (project / '.python').exists()


# Makes .python as uv does, whose archive cannot be fetched from everywhere.
STAND_IN_UV = """#!/bin/sh
echo "$UV_PYTHON_INSTALL_DIR $UV_CACHE_DIR $*" >> {log}.uv
case "$*" in
*install*) mkdir -p .python/3.7/bin && cp {path}.python .python/3.7/bin/python3.7;;
*) echo .python/3.7/bin/python3.7;;
esac
"""


def test_a_python_is_fetched_once(project):
    log = project / 'log'
    stand_in(project / '.uv' / 'bin' / 'uv', log, text=STAND_IN_UV)
    stand_in(project / '.uv' / 'bin' / 'uv.python', log)
    for _ in range(2):
        done = make(project, 'test')
        assert done.returncode == 0, done.stderr
        assert (project / 'log.uv').read_text().splitlines() == [
            '%s/.python %s/.uv/cache --no-config python %s 3.7.9'
            % (project, project, what) for what in ('install', 'find')]
        assert log.read_text().count('venv --clear .venv') == 1
    # What was fetched serves again when .venv is gone.
    shutil.rmtree(str(project / '.venv'))
    assert make(project, 'test').returncode == 0
    assert len((project / 'log.uv').read_text().splitlines()) == 2


def test_an_environment_whose_python_is_gone_is_made_again(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    assert make(project, 'test').returncode == 0
    (project / '.venv' / 'bin' / 'python').unlink()
    assert make(project, 'test').returncode == 0
    assert (project / 'log').read_text().count('venv --clear') == 2


@pytest.mark.parametrize('driver, gpu, fetches', [
    (True, [], True), (True, ['GPU=0'], False), (False, [], False)])
def test_cuda_is_fetched_where_there_is_a_driver(driver, gpu, fetches, project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    if driver:
        (project / 'driver').write_text('')
    assert make(project, 'train', 'DRIVER=driver', *gpu).returncode == 0
    asked = (project / 'log').read_text().splitlines()
    assert asked[-1] == 'train_lstm_mnist.py --data_dir MNIST_data'
    assert ('requirements/cuda.py --if-driver .venv' in asked) == fetches


def test_the_python_that_is_named_is_not_replaced(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    stand_in(project / 'other' / 'python', 'log', text='#!/bin/sh\nexit 0\n')
    other = str(project / 'other' / 'python')
    done = make(project, 'train', 'PYTHON=' + other)
    assert done.returncode != 0
    assert done.stderr.startswith('error: %s is no Python 3.7' % other)
    assert not (project / '.venv').exists() and not (project / 'log').exists()


@pytest.mark.parametrize('place', [
    'bin/python3.7', 'bin/python', 'home/.pyenv/versions/3.7.16/bin/python',
    'uv/python', 'named/python'])
def test_python_is_found_and_installed_to_once(place, project):
    log = project / 'log'
    stand_in(project / place, log)
    if place.startswith('uv'):
        stand_in(project / 'bin' / 'uv', log, text=(
            '#!/bin/sh\n[ "$*" = "python find --system 3.7" ] && '
            'echo %s\n' % (project / place)))
    named = ['PYTHON=%s' % (project / place)] if place[:5] == 'named' else []
    done = make(project, 'test', *named)
    assert done.returncode == 0, done.stderr
    assert 'Making .venv with %s' % (project / place) in done.stderr
    asked = log.read_text().splitlines()[1:]
    assert asked == [
        '-m venv --clear .venv',
        '-m pip install --quiet --disable-pip-version-check -r /dev/stdin',
        '-m pip install -r requirements/tests.txt',
        '-c import hypothesis, matplotlib, PIL, pytest, sklearn, tensorflow, tqdm',
        '-m pytest -ra -n 2 --dist worksteal tests']
    make(project, 'test', *named)
    assert log.read_text().splitlines()[1:] == asked + asked[-1:]


def test_a_broken_install_is_done_again(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    (project / '-m.status').write_text('1')
    assert make(project, 'test').returncode != 0
    assert 'pytest' not in (project / 'log').read_text()
    (project / '-m.status').unlink()
    (project / '-c.status').write_text('1')
    assert make(project, 'test').returncode != 0
    assert 'pytest -ra' not in (project / 'log').read_text()
    (project / '-c.status').unlink()
    assert make(project, 'test').returncode == 0
    assert (project / 'log').read_text().count('venv --clear') == 3


def test_horovod(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    for tool, other in (('cmake', 'c++'), ('c++', 'cmake')):
        stand_in(project / 'bin' / other, 'log', text='#!/bin/sh\n')
        done = make(project, 'horovod')
        assert done.returncode != 0
        assert done.stderr.splitlines()[-2] == (
            'error: no %s was found, which Horovod is built with: apt install '
            'cmake g++, or the like, and run make horovod again' % tool)
        (project / 'bin' / other).unlink()
    for tool in ('cmake', 'c++'):
        stand_in(project / 'bin' / tool, 'log', text='#!/bin/sh\n')
    assert make(project, 'horovod').returncode == 0
    assert (project / 'log').read_text().splitlines()[-2:] == [
        '-m pip install --no-build-isolation -r requirements/horovod.txt',
        '-c import horovod.tensorflow']


def locked():
    """Returns {name: version} of what the locks hold, for what is installed."""
    names = ['training.txt', 'tests.txt']
    if importlib.util.find_spec('horovod'):
        names.append('horovod.txt')
    found = {}
    for name in names:
        with open(os.path.join(ROOT, 'requirements', name)) as f:
            packages = re.split(r'^(?=\w)', f.read(), flags=re.M)[1:]
        for package in packages:
            name, version = re.match(
                r'([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}',
                package).groups()
            assert found.setdefault(name, version) == version
    return found


def test_the_environment_is_the_one_that_is_locked():
    packages = locked()
    assert len(packages) > 40
    for name, version in packages.items():
        installed = pkg_resources.get_distribution(name)
        assert pkg_resources.parse_version(version) == installed.parsed_version
        assert not [needed for needed in installed.requires()
                    if needed.key not in packages]


def test_a_lock_that_is_out_of_step_is_noticed(project):
    def check():
        return subprocess.run([str(project / 'requirements' / 'lock'), '--check'],
                              stderr=subprocess.PIPE, universal_newlines=True)

    assert check().returncode == 0
    path = project / 'requirements.txt'
    path.write_text(path.read_text().replace('tqdm==4.67.1', 'tqdm==4.67.0'))
    done = check()
    assert (done.returncode, done.stderr) == (
        1, 'error: requirements/training.txt is not made from requirements.txt '
        'and requirements/*.in as they stand: run make lock\n')


@pytest.mark.parametrize('status, trains', [
    (0, "train_lstm_mnist.py --data_dir it's  here --seed 1"),
    (1, None),
    (2, None),
    (3, 'train_lstm_mnist.py --dataset digits --seed 1')])
def test_train(status, trains, project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    (project / 'data.py.status').write_text(str(status))
    done = make(project, 'train', "DATA_DIR=it's  here", 'MIRROR=http://m/?a&b',
                'FLAGS=--seed 1')
    assert (done.returncode == 0) == (trains is not None)
    asked = (project / 'log').read_text().splitlines()
    asked = asked[asked.index("data.py it's  here http://m/?a&b") + 1:]
    assert asked == ([trains] if trains else [])
    assert ('NOT on MNIST' in done.stderr) == (status == 3)


def test_quick(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    assert make(project, 'quick', 'DATA_DIR=d', 'FLAGS=--seed 1').returncode == 0
    assert (project / 'log').read_text().splitlines()[-1] == (
        'train_lstm_mnist.py --data_dir d --quick --seed 1')


@pytest.mark.parametrize('flag', ['--dataset digits', '--data_dir=there',
                                  '--mirror http://m/'])
def test_flags_that_choose_the_data_are_not_overruled(flag, project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    (project / 'data.py.status').write_text('3')
    (project / 'train_lstm_mnist.py.status').write_text('1')
    done = make(project, 'train', 'DATA_DIR=here', 'FLAGS=--seed 1 ' + flag)
    assert done.returncode != 0 and 'MNIST' not in done.stderr
    assert (project / 'log').read_text().splitlines()[-1] == (
        'train_lstm_mnist.py --data_dir here --seed 1 ' + flag)
    assert 'data.py' not in (project / 'log').read_text()


def test_a_run_that_is_resumed_knows_its_data(project):
    stand_in(project / 'bin' / 'python3.7', project / 'log')
    (project / 'data.py.status').write_text('3')
    assert make(project, 'train', 'FLAGS=--steps 9 --resume r').returncode == 0
    assert (project / 'log').read_text().splitlines()[-1] == (
        'train_lstm_mnist.py --steps 9 --resume r')
    assert make(project, 'train', 'FLAGS=--resume r', 'DATA_DIR=d',
                'MIRROR=http://m/').returncode == 0
    assert (project / 'log').read_text().splitlines()[-1] == (
        'train_lstm_mnist.py --data_dir d --mirror http://m/ --resume r')


def test_train_on_the_bundled_digits_where_no_mirror_answers(project):
    python = project / '.venv' / 'bin' / 'python'
    stand_in(python, '', text='#!/bin/sh\nexec %s "$@"\n' % sys.executable)
    (project / '.venv' / 'installed').write_text('')
    done = make(project, 'train', 'MIRROR=' + NOWHERE,
                'FLAGS=--steps 5 --hidden_size 8 --dynamic_rnn --device cpu')
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == '(1257, 784)'
    assert done.stdout.splitlines()[-1].startswith('test accuracy ')
    assert 'error: could not fetch MNIST' in done.stderr
    before, after = done.stderr.split('run directory: ')
    assert before.count('MNIST is not in MNIST_data, and no mirror') == 1
    assert after.splitlines()[-1] == (
        'That accuracy is on the bundled digits, NOT on MNIST.')
    assert not (project / 'MNIST_data').exists()


# Instead of training, leaves a result that tells the flags.
STAND_IN_RESULTS = """#!{python}
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
"""


def test_results(project):
    python = project / '.venv' / 'bin' / 'python'
    stand_in(python, '', text=STAND_IN_RESULTS.replace('{python}',
                                                       sys.executable))
    (project / '.venv' / 'installed').write_text('')
    (project / 'bin' / 'date').symlink_to(shutil.which('date'))
    done = make(project, 'results', 'DATA_DIR=here', 'FLAGS=--steps 7 --seed 3')
    assert done.returncode == 0, done.stderr
    assert done.stderr.count('test accuracy of a run') == 10
    assert done.stdout.splitlines() == [
        '| seed | test | validation |',
        '| --- | --- | --- |',
        '| 1 | 0.8100 | 0.4050 |', '| 2 | 0.8200 | 0.4100 |',
        '| 3 | 0.8300 | 0.4150 |', '| 4 | 0.8400 | 0.4200 |',
        '| 5 | 0.8500 | 0.4250 |', '| 6 | 0.8600 | 0.4300 |',
        '| 7 | 0.8700 | 0.4350 |', '| 8 | 0.8800 | 0.4400 |',
        '| 9 | 0.8900 | 0.4450 |', '| 10 | 0.9000 | 0.4500 |',
        '| mean | 0.8550 | 0.4275 |', '| lowest | 0.8100 | 0.4050 |',
        '| highest | 0.9000 | 0.4500 |',
        '| standard deviation | 0.0303 | 0.0151 |', '']

    (project / 'train_lstm_mnist.py.status').write_text('1')
    stand_in(python, project / 'log')
    done = make(project, 'results', 'DATA_DIR=here')
    assert done.returncode != 0 and done.stdout == ''
    assert (project / 'log').read_text().count('train_lstm_mnist.py') == 1


def test_tensorboard(project):
    stand_in(project / '.venv' / 'bin' / 'python', project / 'log')
    stand_in(project / '.venv' / 'bin' / 'tensorboard', project / 'log',
             text='#!/bin/sh\necho "$@" > {log}\n')
    (project / '.venv' / 'installed').write_text('')
    assert make(project, 'tensorboard', 'FLAGS=--port 7').returncode == 0
    assert (project / 'log').read_text() == (
        '--logdir runs --host localhost --port 7\n')
