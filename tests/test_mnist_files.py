"""MNIST's files: check them, and fetch them from servers on 127.0.0.1."""
import gzip
import hashlib
import importlib.util
import os
import pty
import re
import subprocess
import sys
import tempfile
import threading
from unittest import mock

import hypothesis
import numpy as np
import pooch
import pytest
import torture
from conftest import LIES, LIMIT, NOWHERE, ROOT, idx, run, send
from hypothesis import strategies as st
from tensorflow.contrib.learn.python.learn.datasets import mnist as reader

import data
from training import idx as idx_files
from training import mnist_files
from training.errors import UserError
from training.mnist_files import NoMirrorError


def error_of(folder, *mirrors):
    with pytest.raises(UserError) as caught:
        mnist_files.open_files(str(folder), mirrors)
    return caught.value


@pytest.mark.parametrize('images, train', [
    (66000, 61000), (60000, 55000), (6000, 5500), (5001, 4585), (120, 110), (13, 12),
    (2, 1)])
def test_a_small_set_sets_a_twelfth_aside(images, train, made_up_dir):
    (made_up_dir / mnist_files.TRAIN_IMAGES).write_bytes(idx(np.zeros([images, 9, 9])))
    (made_up_dir / mnist_files.TEST_IMAGES).write_bytes(idx(np.zeros([64, 9, 9])))
    (made_up_dir / mnist_files.TRAIN_LABELS).write_bytes(idx(np.arange(images) % 10))
    sets = data.read_data_sets(str(made_up_dir))
    assert sets.train.num_examples == train
    assert sets.validation.num_examples == images - train


def test_one_image_is_too_few(made_up_dir):
    (made_up_dir / mnist_files.TRAIN_IMAGES).write_bytes(idx(np.zeros([1, 28, 28])))
    (made_up_dir / mnist_files.TRAIN_LABELS).write_bytes(idx(np.zeros(1)))
    assert str(error_of(made_up_dir)) == (
        '%s has 1 images, and at least 2 are needed: name another folder with '
        '--data_dir' % (made_up_dir / mnist_files.TRAIN_IMAGES))


def test_one_class_is_too_few(made_up_dir):
    (made_up_dir / mnist_files.TRAIN_LABELS).write_bytes(idx(np.zeros(5256)))
    (made_up_dir / mnist_files.TEST_LABELS).write_bytes(idx(np.zeros(64)))
    assert 'has only the label 0' in str(error_of(made_up_dir))


def test_no_test_images(made_up_dir):
    (made_up_dir / mnist_files.TEST_IMAGES).write_bytes(idx(np.zeros([0, 28, 28])))
    (made_up_dir / mnist_files.TEST_LABELS).write_bytes(idx(np.zeros(0)))
    assert 'has 0 images, and at least 1 are needed' in str(error_of(made_up_dir))


def test_missing_files_of_another_data_set_are_not_fetched(made_up_dir, serve):
    asked = []
    mirror = serve(lambda handler, name: asked.append(name))
    (made_up_dir / mnist_files.TRAIN_LABELS).unlink()
    assert 'has no train-labels' in str(error_of(made_up_dir, mirror))
    assert asked == []


@hypothesis.settings(max_examples=300, deadline=None, database=None)
@hypothesis.given(st.data())
def test_a_file_is_good_or_refused(drawn):
    """A good file that is changed is read as its header says, or refused."""
    labels = drawn.draw(st.booleans(), 'labels')
    count = drawn.draw(st.integers(0, 3), 'count')
    shape = [count] if labels else [count, 20, 33]
    items = np.arange(np.prod(shape)).reshape(shape) % 10
    plain = bytearray(gzip.decompress(idx(items)))
    packed = drawn.draw(st.booleans(), 'packed before it is changed')
    body = bytearray(gzip.compress(bytes(plain))) if packed else plain
    for _ in range(drawn.draw(st.integers(0, 3), 'changes')):
        place = drawn.draw(st.integers(0, len(body)), 'place')
        body[place:place + drawn.draw(st.integers(0, 20), 'less')] = (
            drawn.draw(st.binary(max_size=20), 'more'))
    body = bytes(body) if packed else gzip.compress(bytes(body))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, mnist_files.TEST_LABELS if labels
                            else mnist_files.TEST_IMAGES)
        with open(path, 'wb') as f:
            f.write(body)
        try:
            read = idx_files.read(path, 'labels' if labels else 'images').items
        except UserError as error:
            hypothesis.event('refused')
            assert re.fullmatch(
                re.escape(path) + r" is damaged, or not in MNIST's format \(.+\): put "
                'a whole file in its place, or name another folder with --data_dir',
                str(error))
            return
        hypothesis.event('read')
        with open(path, 'rb') as f:
            expected = (reader.extract_labels if labels else reader.extract_images)(f)
    if read.size:  # without items, the shape alone may be more than numpy compares
        np.testing.assert_array_equal(read, expected if labels else expected[..., 0])


@pytest.fixture
def published(made_up, monkeypatch):
    """Make the made-up files the published ones."""
    monkeypatch.setattr(mnist_files, 'FILES', {
        name: hashlib.sha256(body).hexdigest() for name, body in made_up.items()})
    monkeypatch.setattr(mnist_files, 'CONTENTS', [
        hashlib.sha256(gzip.decompress(body)).hexdigest() for body in made_up.values()])
    monkeypatch.setattr(mnist_files, 'TIMEOUT', 0.5)
    # pooch waits a second before it retries.
    monkeypatch.setattr(pooch.core, 'time', mock.Mock())
    return made_up


@pytest.mark.parametrize('lie', LIES)
def test_a_bad_mirror_leaves_nothing_and_the_next_is_tried(
        lie, published, serve, tmp_path, capsys):
    answer, why = LIES[lie]
    lying = serve(lambda handler, name: answer(handler, name, published[name]))
    folder = tmp_path / 'MNIST_data'

    error = error_of(folder, lying)
    assert isinstance(error, NoMirrorError)
    assert str(error).startswith('could not fetch MNIST (%s: ' % lying)
    assert why in str(error) and '\n' not in str(error)
    assert str(error).endswith(
        'put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, '
        't10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into %s, or '
        'name the folder that has them' % folder)
    assert not folder.exists()

    honest = serve(lambda handler, name: send(handler, published[name]))
    mnist_files.open_files(str(folder), [lying, honest])
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == published
    assert why in capsys.readouterr().err


def test_a_mirror_that_fails_once_is_tried_again(published, serve, tmp_path, capsys):
    asked = []

    def answer(handler, name):
        asked.append(name)
        if len(asked) % 2:
            handler.send_error(500)
        else:
            send(handler, published[name])

    mnist_files.open_files(str(tmp_path), [serve(answer)])
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == published
    assert asked == [name for name in mnist_files.FILES for _ in range(2)]
    assert 'that failed' not in capsys.readouterr().err


def test_fetches_that_are_killed_or_fooled(tmp_path):
    counts = torture.kill_fetches(2, str(tmp_path / 'killed'), lambda line: None)
    assert counts['killed'] == 2
    counts = torture.fool_fetches(10, str(tmp_path / 'fooled'),
                                  lambda line: None)
    assert counts['fooled'] >= 10


def test_only_what_is_missing_is_fetched(published, serve, made_up_dir):
    asked = []

    def answer(handler, name):
        asked.append(name)
        send(handler, published[name])

    (made_up_dir / mnist_files.TRAIN_LABELS).unlink()
    (made_up_dir / mnist_files.TEST_LABELS).unlink()
    mnist_files.open_files(str(made_up_dir), [serve(answer)])
    assert asked == [mnist_files.TRAIN_LABELS, mnist_files.TEST_LABELS]
    mnist_files.open_files(str(made_up_dir), [NOWHERE])


def test_the_error_names_only_the_missing_files(published, made_up_dir):
    (made_up_dir / mnist_files.TEST_LABELS).unlink()
    assert ('refused): put t10k-labels-idx1-ubyte.gz into %s, or' % made_up_dir
            in str(error_of(made_up_dir, NOWHERE)))


def test_the_error_names_every_mirror(tmp_path, serve):
    refusing = serve(lambda handler, name: handler.send_error(403))
    assert ('%s: HTTP 403 Forbidden; %s: Connection refused'
            % (refusing, NOWHERE)) in str(
                error_of(tmp_path / 'new', refusing, NOWHERE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('mirror, variable, value, why', [
    ('http://mirror.invalid/', 'http_proxy', NOWHERE,
     'the proxy that https_proxy or http_proxy names: Connection refused'),
    ('https://127.0.0.1:9/', 'REQUESTS_CA_BUNDLE', '/no/such/file',
     'cannot fetch MNIST (Could not find a suitable TLS CA certificate bundle, invalid '
     'path: /no/such/file): fix REQUESTS_CA_BUNDLE, or'),
    ('http://mirror.invalid/', 'all_proxy', 'socks5://127.0.0.1:9',
     'cannot use the SOCKS proxy socks5://127.0.0.1:9: set http_proxy and https_')])
def test_the_error_names_what_is_set_wrong(mirror, variable, value, why, tmp_path,
                                           monkeypatch):
    monkeypatch.setenv(variable, value)
    error = error_of(tmp_path, mirror)
    assert why in str(error)
    # Digits are no way out where the user can set it right.
    assert isinstance(error, NoMirrorError) == (variable == 'http_proxy')


def test_a_quoted_tilde_is_the_home_folder(made_up_dir):
    done = run('data.py', '~', HOME=str(made_up_dir))
    assert done.returncode == 0 and not done.error_lines


def test_data_py_tells_a_missing_mirror_from_other_errors(tmp_path, made_up_dir):
    done = run('data.py', tmp_path / 'new', NOWHERE)
    assert (done.returncode, done.stdout) == (3, '')
    line, = done.error_lines
    assert line.startswith('error: could not fetch MNIST (%s: ' % NOWHERE)
    assert run('data.py', made_up_dir, NOWHERE).returncode == 0
    assert run('data.py', made_up_dir, 'ftp://127.0.0.1/').returncode == 2
    assert run('data.py', '').returncode == 2


def test_a_folder_that_cannot_be_written(published, serve, tmp_path):
    (tmp_path / 'file').write_text('')
    mirror = serve(lambda handler, name: send(handler, published[name]))
    error = error_of(tmp_path / 'file' / 'MNIST_data', mirror)
    assert 'Not a directory' in str(error)


def test_a_fetched_file_can_be_read_by_other_users(published, serve, tmp_path):
    mnist_files.open_files(str(tmp_path), [serve(
        lambda handler, name: send(handler, published[name]))])
    for name in mnist_files.FILES:
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o644


def test_a_file_system_that_refuses_chmod(published, serve, tmp_path, monkeypatch):
    """As FUSE's may do."""
    asked = []

    def answer(handler, name):
        asked.append(name)
        send(handler, published[name])

    def refuse(path, mode, **kwargs):
        raise PermissionError(1, 'Operation not permitted', path)

    monkeypatch.setattr(os, 'chmod', refuse)
    mnist_files.open_files(str(tmp_path), [serve(answer)])
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == published
    assert asked == list(mnist_files.FILES)


def test_without_pooch_the_error_says_what_to_install(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: (
        None if name == 'pooch' else find_spec(name)))
    line = str(error_of(tmp_path, NOWHERE))
    assert line == 'pooch is missing: pip install pooch==1.8.2'
    with open(os.path.join(ROOT, 'requirements.txt')) as f:
        assert 'pooch==1.8.2' in f.read().split()


def test_progress_is_shown_on_a_terminal(published, serve, tmp_path):
    mirror = serve(lambda handler, name: send(handler, published[name]))
    ours, theirs = pty.openpty()
    code = ('from training import mnist_files\n'
            'mnist_files.FILES = %r\n'
            'mnist_files.open_files(%r, [%r])'
            % (mnist_files.FILES, str(tmp_path), mirror))
    subprocess.check_call([sys.executable, '-c', code], cwd=ROOT, stderr=theirs)
    shown = os.read(ours, 1 << 20).decode()
    assert 'fetching %s%s' % (mirror, mnist_files.TRAIN_IMAGES) in shown
    assert '100%|' in shown


@pytest.mark.parametrize('fetchers', [2, 5])
def test_processes_that_fetch_at_once_all_succeed(fetchers, mnist_dir, serve,
                                              tmp_path):
    all_of_them = threading.Barrier(fetchers, timeout=LIMIT)

    def answer(handler, name):
        with open(os.path.join(mnist_dir, name), 'rb') as f:
            body = f.read()
        all_of_them.wait()  # serve nobody before all have asked
        send(handler, body)

    mirror = serve(answer)
    folder = tmp_path / 'MNIST_data'
    runs = [subprocess.Popen([sys.executable, os.path.join(ROOT, 'data.py'),
                              str(folder), mirror]) for _ in range(fetchers)]
    assert [one.wait(LIMIT) for one in runs] == [0] * fetchers
    assert sorted(f.name for f in folder.iterdir()) == sorted(mnist_files.FILES)
    assert mnist_files.open_files(str(folder), ()).name == 'mnist'
