import os
import socket
import subprocess

import conftest
import pytest

from training.files import write_whole


def test_what_killed_processes_left_is_removed(tmp_path):
    dead = subprocess.Popen(['true'])
    dead.wait()
    name = 'a.%s-%%d-1f.part' % socket.gethostname()
    for pid in (dead.pid, os.getppid()):  # and one that still writes
        (tmp_path / (name % pid)).write_text('half of it')
    (tmp_path / 'a.elsewhere-1-1f.part').write_text('half of it')
    write_whole(str(tmp_path / 'a'), b'all of it')
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ['a', 'a.elsewhere-1-1f.part', name % os.getppid()])
    assert (tmp_path / 'a').read_bytes() == b'all of it'


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
