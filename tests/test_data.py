import functools
import gzip
import hashlib
import os
import pty
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import data
from conftest import NOWHERE, ROOT, idx, run, send


# What the reader gives.

def check(part, n):
    """That a data set has n proper examples."""
    assert part.num_examples == n
    assert part.images.shape == (n, 784) and part.images.dtype == np.float32
    assert part.images.min() == 0 and 0.99 < part.images.max() <= 1
    assert part.labels.shape == (n, 10)
    np.testing.assert_array_equal(np.sort(part.labels, 1)[:, -2:], [[0, 1]] * n)


def test_mnist(mnist_dir, capsys):
    mnist = data.read_data_sets(mnist_dir)
    for part, n in zip(mnist, (55000, 5000, 10000)):
        check(part, n)
    assert capsys.readouterr() == (''.join(
        'Extracting %s\n' % os.path.join(mnist_dir, name)
        for name in data.FILES), '')
    # The published labels begin 5, 0, 4, 1, 9 and 7, 2, 1, 0, 4.
    assert mnist.validation.labels[:5].argmax(1).tolist() == [5, 0, 4, 1, 9]
    assert mnist.test.labels[:5].argmax(1).tolist() == [7, 2, 1, 0, 4]
    with gzip.open(os.path.join(mnist_dir, data.TEST_IMAGES)) as f:
        first = np.frombuffer(f.read(16 + 784)[16:], np.uint8)
    np.testing.assert_allclose(mnist.test.images[0], first / 255, atol=1e-7)
    assert data.is_mnist(mnist_dir)
    assert data.num_train('mnist', mnist_dir) == 55000


def test_another_data_set_is_read_as_it_is(made_up_dir, capsys):
    made_up = data.read_data_sets(str(made_up_dir))
    for part, n in zip(made_up, (256, 5000, 64)):
        assert part.images.shape == (n, 784) and part.labels.shape == (n, 10)
    assert 'not MNIST\'s' in capsys.readouterr().err
    assert not data.is_mnist(str(made_up_dir))
    assert data.num_train('mnist', str(made_up_dir)) == 256


def test_tensorflow_without_its_examples(made_up_dir, monkeypatch):
    one = data.read_data_sets(str(made_up_dir), seed=1)
    monkeypatch.setitem(sys.modules, 'tensorflow.examples.tutorials.mnist',
                        None)
    other = data.read_data_sets(str(made_up_dir), seed=1)
    np.testing.assert_array_equal(one.train.images, other.train.images)
    np.testing.assert_array_equal(one.test.labels, other.test.labels)


def test_next_batch_goes_through_every_example_once_an_epoch(made_up_dir):
    train = data.read_data_sets(str(made_up_dir), seed=3).train
    train._images = np.arange(256)  # so that an example can be told
    seen = np.concatenate([train.next_batch(100)[0] for _ in range(5)])
    assert train.epochs_completed == 1
    assert sorted(seen[:256]) == list(range(256))
    assert len(set(seen[256:])) == 500 - 256
    assert list(seen[:100]) != list(range(100))


def test_seed_decides_the_order(made_up_dir):
    def batches(seed):
        train = data.read_data_sets(str(made_up_dir), seed=seed).train
        return np.concatenate([train.next_batch(99)[1] for _ in range(4)])

    np.testing.assert_array_equal(batches(7), batches(7))
    assert (batches(7) != batches(8)).any()
    assert (batches(None) != batches(None)).any()


def test_digits():
    digits = data.read_data_sets('no such folder', 'digits', seed=1)
    for part, n in zip(digits, (1257, 180, 360)):
        check(part, n)
        images = part.images.reshape(n, 28, 28)
        ink = images.sum((1, 2))
        rows = (images.sum(2) @ np.arange(28)) / ink
        columns = (images.sum(1) @ np.arange(28)) / ink
        # Laid by whole pixels, as MNIST's are.
        assert np.abs(rows - 14).max() < 0.51
        assert np.abs(columns - 14).max() < 0.51
        high, wide = (images.any(axis).sum(1) for axis in (2, 1))
        assert high.max() == 20 and wide.max() <= 20
    labels = np.concatenate([part.labels.argmax(1) for part in digits])
    # The counts that the UCI page gives for this part of its data set.
    assert np.bincount(labels).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.num_train('digits', '') == 1257
    again = data.read_data_sets('', 'digits', seed=2)
    np.testing.assert_array_equal(digits.test.images, again.test.images)
    np.testing.assert_array_equal(digits.test.labels, again.test.labels)


def test_digits_are_resampled_from_edge_to_edge():
    from sklearn.datasets import load_digits
    first = np.random.RandomState(0).permutation(1797)[1257 + 180]
    places = np.linspace(0, 7, 20)
    between = np.array([np.interp(places, range(8), row)
                        for row in np.eye(8)]).T
    box = between @ (load_digits().images[first] / 16) @ between.T
    image = data.read_data_sets('', 'digits').test.images[0].reshape(28, 28)
    assert min(np.abs(image[top:top + 20, left:left + 20] - box).max()
               for top in range(9) for left in range(9)) <= 0.5 / 255 + 1e-6
    np.testing.assert_allclose(image.sum(), box.sum(), rtol=1e-2)


def test_digits_without_scikit_learn_say_what_to_install():
    code = ('import sys; sys.modules["sklearn.datasets"] = None\n'
            'import data\n'
            'try: data.read_data_sets("", "digits")\n'
            'except data.UserError as error: print(error)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT,
                          stdout=subprocess.PIPE, universal_newlines=True)
    with open(os.path.join(ROOT, 'requirements-dev.txt')) as f:
        pin, = [line.strip() for line in f if line.startswith('scikit-learn')]
    assert done.stdout == ('--dataset digits needs scikit-learn: pip install '
                           '%s\n' % pin)


# Files that are damaged. Each case takes the body of a good file and returns a
# bad one, with what the error line says of it.

def flip(body, place):
    body = bytearray(body)
    body[place] ^= 0x10
    return bytes(body)


def images(count, rows, columns, pixels):
    return gzip.compress(np.array([0x803, count, rows, columns], '>u4').tobytes()
                         + bytes(pixels), 1)


IMAGES, LABELS = data.TRAIN_IMAGES, data.TRAIN_LABELS
DAMAGE = {
    'empty': (IMAGES, lambda body: b'', 'ends in its header'),
    'cut in the gzip header': (IMAGES, lambda body: body[:5], ''),
    'cut in the middle': (IMAGES, lambda body: body[:len(body) // 2],
                          'ended before'),
    'cut in the trailer': (IMAGES, lambda body: body[:-3], 'ended before'),
    'not gzip': (IMAGES, gzip.decompress, 'Not a gzipped file'),
    'a web page': (LABELS, lambda body: b'<html>404</html>',
                   'Not a gzipped file'),
    'bit flipped in the body': (IMAGES, lambda body: flip(body, 3000), ''),
    'bit flipped in the sum': (IMAGES, lambda body: flip(body, -6),
                               'CRC check failed'),
    'bit flipped in the length': (IMAGES, lambda body: flip(body, -1),
                                  'Incorrect length'),
    'followed by something': (IMAGES, lambda body: body + b'x', ''),
    'labels where images belong': (IMAGES, lambda body: idx(np.zeros(16)),
                                   'magic number is 2049, not 2051'),
    'images where labels belong': (LABELS, lambda body: images(
        1, 28, 28, 784), 'magic number is 2051, not 2049'),
    '32 x 32': (IMAGES, lambda body: images(5256, 32, 32, 5256 * 1024),
                'its images are 32 x 32, not 28 x 28'),
    'fewer images than it says': (IMAGES, lambda body: images(
        5256, 28, 28, 5255 * 784), 'holds 4119920 bytes where its header says '
                                   '4120704'),
    'a bomb': (IMAGES, lambda body: images(5256, 28, 28, 50 * 10 ** 6),
               'more than the 5256 items that its header says'),
    'label 10': (LABELS, lambda body: gzip.compress(
        gzip.decompress(body)[:-1] + b'\x0a'), 'the label 10'),
}


@pytest.mark.parametrize('case', DAMAGE)
def test_a_damaged_file_is_named(case, made_up_dir):
    name, damage, why = DAMAGE[case]
    path = made_up_dir / name
    path.write_bytes(damage(path.read_bytes()))
    before = {f.name: f.read_bytes() for f in made_up_dir.iterdir()}
    done = run('data.py', made_up_dir, NOWHERE)
    assert (done.returncode, done.stdout) == (1, '')
    line, = done.error_lines
    assert line.startswith('error: %s is damaged (' % path)
    assert why in line
    assert line.endswith('): delete it and run again')
    assert before == {f.name: f.read_bytes() for f in made_up_dir.iterdir()}


def error_of(folder, *mirrors):
    with pytest.raises(data.UserError) as caught:
        data.find_files(str(folder), mirrors)
    return caught.value


def test_files_that_do_not_fit_each_other(made_up_dir):
    (made_up_dir / data.TEST_LABELS).write_bytes(idx(np.zeros(63)))
    assert str(error_of(made_up_dir)) == (
        'in %s, t10k-labels-idx1-ubyte.gz has 63 labels for the 64 images of '
        't10k-images-idx3-ubyte.gz: delete the wrong one and run again'
        % made_up_dir)


def test_too_few_images_to_set_some_aside(made_up_dir):
    (made_up_dir / data.TRAIN_IMAGES).write_bytes(idx(np.zeros([5000, 28, 28])))
    (made_up_dir / data.TRAIN_LABELS).write_bytes(idx(np.zeros(5000)))
    assert data.num_train('mnist', str(made_up_dir)) == 55000
    assert str(error_of(made_up_dir)) == (
        '%s has 5000 images where at least 5001 are needed, 5000 of them for '
        'validation: delete it and run again'
        % (made_up_dir / data.TRAIN_IMAGES))


def test_no_test_images(made_up_dir):
    (made_up_dir / data.TEST_IMAGES).write_bytes(idx(np.zeros([0, 28, 28])))
    (made_up_dir / data.TEST_LABELS).write_bytes(idx(np.zeros(0)))
    assert 'has 0 images where at least 1' in str(error_of(made_up_dir))


def test_another_data_set_is_not_filled_up_with_mnist(made_up_dir, serve):
    asked = []
    mirror = serve(lambda handler, name: asked.append(name))
    (made_up_dir / data.TRAIN_LABELS).unlink()
    error = error_of(made_up_dir, mirror)
    assert str(error) == (
        '%s has no train-labels-idx1-ubyte.gz, and what it has is not MNIST\'s '
        '(train-images-idx3-ubyte.gz, t10k-images-idx3-ubyte.gz, '
        't10k-labels-idx1-ubyte.gz): put in what is missing of the same data '
        'set, or delete all to fetch MNIST' % made_up_dir)
    assert asked == []


def test_a_folder_where_a_file_belongs(made_up_dir):
    (made_up_dir / data.TEST_LABELS).unlink()
    (made_up_dir / data.TEST_LABELS).mkdir()
    assert str(error_of(made_up_dir)).startswith(
        'cannot read %s (Is a directory)' % (made_up_dir / data.TEST_LABELS))


def test_a_link_to_nothing(made_up_dir):
    (made_up_dir / data.TEST_LABELS).unlink()
    (made_up_dir / data.TEST_LABELS).symlink_to('gone')
    assert 'No such file' in str(error_of(made_up_dir))


def test_a_file_where_the_folder_belongs(made_up_dir):
    assert str(error_of(made_up_dir / data.TEST_LABELS)).startswith(
        'cannot read the folder %s (Not a directory)'
        % (made_up_dir / data.TEST_LABELS))


# Fetching, from servers on 127.0.0.1.

@pytest.fixture
def published(made_up, monkeypatch):
    """Lets the made-up files pass for the published ones."""
    monkeypatch.setattr(data, 'FILES', {
        name: (len(body), hashlib.sha256(body).hexdigest())
        for name, body in made_up.items()})
    return made_up


def stall(handler, name, body):
    send(handler, body[:100], len(body))
    time.sleep(3)


def drip(handler, name, body):
    send(handler, b'', len(body))
    for place in range(100):
        handler.wfile.write(body[place:place + 1])
        time.sleep(0.1)


def redirect(handler, name, body):
    handler.send_response(302)
    handler.send_header('Location', '/' + name)
    handler.end_headers()


def reset(handler, name, body):
    send(handler, body[:100], len(body))
    # Closing without lingering sends a reset.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                  struct.pack('ii', 1, 0))
    handler.connection.close()


# What a mirror may do instead of sending train-images, and what is said of it.
LIES = {
    'the wrong file': (lambda handler, name, body: send(
        handler, bytes(len(body))), 'whose sha256 is not the published one'),
    'too little': (lambda handler, name, body: send(handler, body[:-1]),
                   'sent {less} of the {size} bytes'),
    'less than it says': (lambda handler, name, body: send(
        handler, body[:-1], len(body)), 'sent {less} of the {size} bytes'),
    'too much': (lambda handler, name, body: send(handler, body + bytes(10 ** 6)),
                 'sent more than the {size} bytes'),
    'nothing': (lambda handler, name, body: None, 'without response'),
    'no HTTP': (lambda handler, name, body: handler.wfile.write(b'hi\n' * 9),
                'hi'),
    '404': (lambda handler, name, body: handler.send_error(404),
            'HTTP 404 Not Found'),
    '500': (lambda handler, name, body: handler.send_error(500),
            'HTTP 500 Internal Server Error'),
    'a circle': (redirect, 'redirect error that would lead to an infinite loop'),
    'a reset': (reset, 'Connection reset by peer'),
    'half, then silence': (stall, 'timed out'),
    'a byte now and then': (drip, 'bytes of {name} in 1 seconds'),
}


@pytest.mark.parametrize('lie', LIES)
def test_a_mirror_that_lies_leaves_nothing_and_the_next_is_asked(
        lie, published, serve, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, 'fetch', functools.partial(
        data.fetch, timeout=0.5, deadline=1))
    answer, why = LIES[lie]
    why = why.format(name=data.TRAIN_IMAGES,
                     size=len(published[data.TRAIN_IMAGES]),
                     less=len(published[data.TRAIN_IMAGES]) - 1)
    lying = serve(lambda handler, name: answer(handler, name, published[name]))
    folder = tmp_path / 'MNIST_data'

    error = error_of(folder, lying)
    assert isinstance(error, data.NoMirrorError)
    assert str(error).startswith('could not fetch MNIST (%s: ' % lying)
    assert why in str(error) and '\n' not in str(error)
    assert 'sent 100 of' not in str(error)  # not all that the dripping one had
    assert str(error).endswith(
        'put train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, '
        't10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into %s, or '
        'name the folder that has them' % folder)
    assert not folder.exists()

    honest = serve(lambda handler, name: send(handler, published[name]))
    data.find_files(str(folder), [lying, honest])
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == published
    assert why in capsys.readouterr().err


def test_only_what_is_missing_is_fetched(published, serve, made_up_dir):
    asked = []

    def answer(handler, name):
        asked.append(name)
        send(handler, published[name])

    (made_up_dir / data.TRAIN_LABELS).unlink()
    (made_up_dir / data.TEST_LABELS).unlink()
    data.find_files(str(made_up_dir), [serve(answer)])
    assert asked == [data.TRAIN_LABELS, data.TEST_LABELS]
    data.find_files(str(made_up_dir), [NOWHERE])


def test_only_what_is_missing_is_asked_for(published, made_up_dir):
    (made_up_dir / data.TEST_LABELS).unlink()
    assert ('refused): put t10k-labels-idx1-ubyte.gz into %s, or' % made_up_dir
            in str(error_of(made_up_dir, NOWHERE)))


def test_mirrors_are_asked_in_turn_and_all_are_named(tmp_path, serve):
    refusing = serve(lambda handler, name: handler.send_error(403))
    assert ('%s: HTTP 403 Forbidden; %s: Connection refused'
            % (refusing, NOWHERE)) in str(
                error_of(tmp_path / 'new', refusing, NOWHERE))
    assert list(tmp_path.iterdir()) == []


def test_data_py_tells_no_mirror_from_what_can_be_mended(tmp_path, made_up_dir):
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


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(data.UserError) as caught:
        data.write_whole(str(tmp_path / 'file'), b'body')
    assert str(caught.value) == (
        'cannot write %s (No space left on device): mend that, or name another '
        'folder' % (tmp_path / 'file'))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown_on_a_terminal(published, serve, tmp_path):
    mirror = serve(lambda handler, name: send(handler, published[name]))
    ours, theirs = pty.openpty()
    code = ('import data\n'
            'data.FILES = %r\n'
            'data.find_files(%r, [%r])' % (data.FILES, str(tmp_path), mirror))
    subprocess.check_call([sys.executable, '-c', code], cwd=ROOT, stderr=theirs)
    shown = os.read(ours, 1 << 20).decode()
    assert '\rfetching %s%s 100%%' % (mirror, data.TRAIN_IMAGES) in shown


def test_two_that_start_at_once_both_succeed(mnist_dir, serve, tmp_path):
    both = threading.Barrier(2, timeout=60)

    def answer(handler, name):
        with open(os.path.join(mnist_dir, name), 'rb') as f:
            body = f.read()
        both.wait()  # neither is served before the other has asked
        send(handler, body)

    mirror = serve(answer)
    folder = tmp_path / 'MNIST_data'
    runs = [subprocess.Popen([sys.executable, os.path.join(ROOT, 'data.py'),
                              str(folder), mirror]) for _ in range(2)]
    assert [one.wait(120) for one in runs] == [0, 0]
    assert sorted(f.name for f in folder.iterdir()) == sorted(data.FILES)
    assert data.is_mnist(str(folder))
