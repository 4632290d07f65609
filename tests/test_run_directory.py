import os
import re
import socket
import time

import pytest

import training
from training import run_directory
from training.errors import UserError
from training.run_directory import RunDirectory


def test_what_training_says_of_itself_is_whole():
    modules = {os.path.splitext(name)[0]
               for name in os.listdir(os.path.dirname(training.__file__))}
    listed = re.findall(r'^    (\w+)  ', training.__doc__, re.M)
    assert sorted(listed) == sorted(modules - {'__init__', '__pycache__'})


def test_another_machines_staging_folder_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, 'gethostname', lambda: 'node')
    for name in ('saving-node-7', 'saving-node-1-7'):
        (tmp_path / name).mkdir()
    directory = RunDirectory(str(tmp_path))
    with directory.staging('a') as staging:
        assert os.path.isdir(staging)
    directory.unlock()
    assert sorted(os.listdir(str(tmp_path))) == ['.lock', 'saving-node-1-7']


def test_runs_that_begin_in_the_same_second_do_not_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda form: 'runs/20200101-000000')
    created = [run_directory.create() for _ in range(3)]
    assert [directory.path for directory in created] == [
        'runs/20200101-000000', 'runs/20200101-000000-2',
        'runs/20200101-000000-3']
    with pytest.raises(UserError, match='is in use by a training'):
        RunDirectory('runs/20200101-000000-3')
