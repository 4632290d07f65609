import os
import re
import time

import conftest
import pytest

import reading
import training
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


def test_locking_removes_the_temporary_files_of_killed_processes(tmp_path):
    for name in ('saving-node-7', 'saving-x1'):  # of an older version, and of this
        (tmp_path / name).mkdir()
        (tmp_path / name / 'half').write_text('half of it')
    for name in ('curves.png.0f.part', 'model.ckpt-20.index.tempstate12',
                 'model.ckpt-20.data-00000-of-00001.tempstate34', 'result.json',
                 'model.ckpt-10.index'):
        (tmp_path / name).write_text('')
    directory = RunDirectory(str(tmp_path))
    directory.lock()
    directory.unlock()
    assert sorted(os.listdir(str(tmp_path))) == [
        '.lock', 'model.ckpt-10.index', 'result.json']


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
