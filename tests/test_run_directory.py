import errno
import os
import re
import time

import conftest
import pytest

import reading
import training
from training import run_directory
from training.errors import UserError
from training.run_directory import RunDirectory, write_whole


@pytest.mark.parametrize('package', [training, reading])
def test_the_list_of_modules_is_complete(package):
    modules = {os.path.splitext(name)[0]
               for name in os.listdir(os.path.dirname(package.__file__))}
    listed = re.findall(r'^    (\w+)  ', package.__doc__, re.M)
    assert sorted(listed) == sorted(modules - {'__init__', '__pycache__'})


def test_training_imports_nothing_from_reading():
    folder = os.path.dirname(training.__file__)
    for name in os.listdir(folder):
        if name.endswith('.py'):
            with open(os.path.join(folder, name), encoding='utf-8') as f:
                assert not re.search(r'^ *(from|import) reading', f.read(), re.M), name


def test_locking_deletes_only_temporary_files_of_killed_processes(tmp_path):
    ours = ['.train_lstm_mnist-' + 32 * 'a', 'model.ckpt-20.index.tempstate12',
            'model.ckpt-20.data-00000-of-00001.tempstate34']
    users = ['result.json', 'model.ckpt-10.index', 'thesis.tar.part', 'notes.0f.part',
             'curves.png.%s.part' % (32 * 'a'), '.train_lstm_mnist-notes',
             'model.ckpt-best.tempstate1', 'a.train_lstm_mnist-' + 32 * 'a']
    for name in ours + users:
        (tmp_path / name).write_text('')
    for name in ('.train_lstm_mnist-' + 32 * 'b', 'saving-for-later'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'half').write_text('half of it')
    directory = RunDirectory(str(tmp_path))
    directory.lock()
    directory.unlock()
    assert sorted(os.listdir(str(tmp_path))) == sorted(
        ['.lock', 'saving-for-later', *users])


def test_what_a_killed_write_leaves_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'replace', lambda *names: os._exit(0))
    child = os.fork()
    if not child:
        write_whole(str(tmp_path / 'config.json'), b'{}')
    os.waitpid(child, 0)
    left, = os.listdir(str(tmp_path))
    assert run_directory.TEMPORARY.fullmatch(left)
    directory = RunDirectory(str(tmp_path))
    directory.lock()
    directory.unlock()
    assert os.listdir(str(tmp_path)) == ['.lock']


@pytest.mark.parametrize('number', [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_gets_a_warning(number, tmp_path, monkeypatch,
                                                    capsys):
    def refuse(file, how):
        raise OSError(number, os.strerror(number))

    temporary = tmp_path / ('.train_lstm_mnist-' + 32 * 'a')
    temporary.write_text('')
    monkeypatch.setattr(run_directory.fcntl, 'flock', refuse)
    directory = RunDirectory(str(tmp_path))
    directory.lock()
    assert capsys.readouterr().err == (
        'warning: the file system of %s has no locks (%s): do not start a second '
        'training in this folder\n' % (tmp_path, os.strerror(number)))
    assert temporary.exists()  # it may be that of another training


def test_a_run_without_a_checkpoint_begins_again(tmp_path):
    for name in ('config.json', 'model.ckpt.meta', 'slurm-1.out'):
        (tmp_path / name).write_text('')
    RunDirectory(str(tmp_path)).create()
    assert sorted(os.listdir(str(tmp_path))) == [
        '.lock', 'config.json', 'model.ckpt.meta', 'slurm-1.out']


def test_a_folder_that_holds_a_run_is_told_to_resume(tmp_path):
    for name in ('config.json', 'model.ckpt-20.index'):
        (tmp_path / name).write_text('')
    with pytest.raises(UserError, match='holds a run: go on with --resume %s, or name '
                       'a new folder with --run_dir' % tmp_path):
        RunDirectory(str(tmp_path)).create()


@pytest.mark.parametrize('names', [['thesis.txt'], ['lost+found', 'thesis.txt'],
                                   ['config.json', 'result.json']])
def test_a_folder_with_something_in_it_is_left_alone(names, tmp_path):
    for name in names:
        (tmp_path / name).write_text('')
    with pytest.raises(UserError, match='is not empty'):
        RunDirectory(str(tmp_path)).create()
    assert sorted(os.listdir(str(tmp_path))) == sorted(names)


def test_a_disk_of_its_own_is_empty(tmp_path):
    (tmp_path / 'lost+found').mkdir()
    RunDirectory(str(tmp_path)).create()


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(OSError, match='No space left on device'):
        write_whole(str(tmp_path / 'file'), b'body')
    assert list(tmp_path.iterdir()) == []


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda form: 'runs/20200101-000000')
    created = [RunDirectory(None) for _ in range(3)]
    for directory in created:
        directory.create()
    assert [directory.path for directory in created] == [
        'runs/20200101-000000', 'runs/20200101-000000-2',
        'runs/20200101-000000-3']
    with pytest.raises(UserError, match='is in use by a training'):
        RunDirectory('runs/20200101-000000-3').lock()


@pytest.mark.parametrize('prefix', [lambda: conftest.full_disk('disk'),
                                    conftest.without_root])
def test_tests_are_skipped_where_unshare_is_forbidden(prefix, tmp_path,
                                                      monkeypatch):
    (tmp_path / 'unshare').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'unshare').chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, 'geteuid', lambda: 0)
    with pytest.raises(pytest.skip.Exception, match='unshare --user.* is forbidden'):
        prefix()
