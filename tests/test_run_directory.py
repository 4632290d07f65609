import time

import pytest

from training import run_directory
from training.errors import UserError
from training.run_directory import RunDirectory


def test_runs_that_begin_in_the_same_second_do_not_share(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, 'strftime', lambda form: 'runs/20200101-000000')
    created = [run_directory.create() for _ in range(3)]
    assert [directory.path for directory in created] == [
        'runs/20200101-000000', 'runs/20200101-000000-2',
        'runs/20200101-000000-3']
    with pytest.raises(UserError, match='is in use by a training'):
        RunDirectory('runs/20200101-000000-3')
