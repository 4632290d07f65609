"""Data sets in MNIST's format, of any shape, as other programs leave their files."""
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, call, idx, send
from PIL import Image

import data
from reading import cells
from training import idx as idx_files
from training import mnist_files, saved_model
from training.errors import UserError

PLAIN = [name[:-len('.gz')] for name in mnist_files.FILES]


def write(folder, names, bodies):
    for name, body in zip(names, bodies):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body if name.endswith('.gz') else gzip.decompress(body))


@pytest.mark.parametrize('names', [
    PLAIN,
    [name.replace('-idx', '.idx') for name in PLAIN],
    [name.replace('-idx', '.idx') for name in mnist_files.FILES],
    ['MNIST/raw/' + name for name in PLAIN],
    ['raw/' + name for name in PLAIN],
    ['emnist-letters-' + name.replace('t10k', 'test') for name in mnist_files.FILES],
    ['gzip/emnist-letters-' + name.replace('t10k', 'test')
     for name in mnist_files.FILES],
    ['%s/%s' % (name, name.replace('-idx', '.idx')) for name in PLAIN],
    [name.upper() for name in PLAIN],
    [*list(mnist_files.FILES)[:2], *PLAIN[2:]],
    ['train_images_idx3_ubyte', 'train_labels_idx1_ubyte', 'test_images_idx3_ubyte',
     'test_labels_idx1_ubyte'],
])
def test_the_files_are_read_as_others_leave_them(names, made_up, made_up_dir, tmp_path,
                                                 capsys):
    folder = tmp_path / 'other'
    write(folder, names, made_up.values())
    (found, batch), (expected, same_batch) = (
        (sets, sets.train.next_batch(9)[0]) for sets in (
            data.read_data_sets(str(place), mirrors=(), seed=1)
            for place in (folder, made_up_dir)))
    np.testing.assert_array_equal(batch, same_batch)
    for one, other in zip(found, expected):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.images.dtype == other.images.dtype
        assert one.labels.dtype == other.labels.dtype
    assert found.source.shape == expected.source.shape == (28, 28)
    assert found.source.class_num == expected.source.class_num == 10
    assert capsys.readouterr().out.count('Extracting ') == 8
    assert found.source.sha256 == expected.source.sha256


def test_a_name_in_gz_may_hold_what_is_not_gzipped(made_up, tmp_path):
    for name, body in made_up.items():
        (tmp_path / name).write_bytes(gzip.decompress(body))
    assert data.read_data_sets(str(tmp_path), mirrors=()).test.num_examples == 64


def test_torchvision_keeps_both(made_up, tmp_path):
    write(tmp_path, ['MNIST/raw/' + name for name in [*mnist_files.FILES, *PLAIN]],
          [*made_up.values()] * 2)
    assert mnist_files.open_files(str(tmp_path), ()).paths == [
        str(tmp_path / 'MNIST' / 'raw' / name) for name in mnist_files.FILES]


def test_what_is_inside_tells_what_it_is(mnist_dir, tmp_path):
    for name in mnist_files.FILES:
        with gzip.open('%s/%s' % (mnist_dir, name)) as f:
            body = f.read()
        (tmp_path / name).write_bytes(gzip.compress(body, 1))
    source = mnist_files.open_files(str(tmp_path), ())
    assert source.name == 'mnist' and source.is_of_run(mnist_files.CONTENTS)
    # As an older version wrote it into config.json.
    assert source.is_of_run(list(mnist_files.FILES.values()))


def test_a_part_of_mnist_in_a_subfolder_is_left_alone(made_up, serve, tmp_path,
                                                      monkeypatch):
    monkeypatch.setattr(mnist_files, 'FILES', {
        name: hashlib.sha256(body).hexdigest() for name, body in made_up.items()})
    monkeypatch.setattr(mnist_files, 'CONTENTS', [
        hashlib.sha256(gzip.decompress(body)).hexdigest() for body in made_up.values()])
    write(tmp_path, ['raw/' + name for name in PLAIN[:2]], made_up.values())
    mirror = serve(lambda handler, name: send(handler, made_up[name]))
    source = mnist_files.open_files(str(tmp_path), [mirror])
    assert source.paths == [str(tmp_path / name) for name in mnist_files.FILES]
    assert source.name == 'mnist'


REFUSED = {
    'two sets': (['MNIST/raw/' + name for name in PLAIN]
                 + ['FashionMNIST/raw/' + name for name in PLAIN], 'several data sets'),
    'two splits of EMNIST': ([split + name for split in ('emnist-letters-', 'emnist-')
                              for name in PLAIN], 'several data sets'),
    'parts of two sets': ([PLAIN[0], 'emnist-letters-' + PLAIN[1]],
                          'several data sets'),
    'labels missing': ([PLAIN[0], PLAIN[2]],
                       'has no train-labels-idx1-ubyte, t10k-labels-idx1-ubyte, and'),
    'one left': ([PLAIN[3]], "and what it has is not MNIST's"),
    'names that say nothing': (['a.idx', 'b.idx', 'c.gz', 'd'],
                               'other names than MNIST\'s (a.idx, b.idx, c.gz, d)'),
}


@pytest.mark.parametrize('names, why', REFUSED.values(), ids=list(REFUSED))
def test_mnist_never_takes_the_place_of_other_data(names, why, made_up, serve,
                                                   tmp_path):
    asked = []
    mirror = serve(lambda handler, name: asked.append(name))
    bodies = made_up.values()
    if names == [PLAIN[0], PLAIN[2]]:
        bodies = list(bodies)[::2]
    elif names == [PLAIN[3]]:
        bodies = list(bodies)[3:]
    write(tmp_path, names, [*bodies] * 2)
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(UserError) as caught:
        mnist_files.open_files(str(tmp_path), [mirror])
    assert why in str(caught.value)
    assert not isinstance(caught.value, mnist_files.NoMirrorError)
    assert asked == [] and sorted(tmp_path.rglob('*')) == before


def test_two_files_that_differ_are_refused(made_up, made_up_dir):
    write(made_up_dir, PLAIN[:1], [idx(np.zeros([5256, 28, 28]))])
    with pytest.raises(UserError, match='ubyte.gz and .*ubyte hold different data'):
        mnist_files.open_files(str(made_up_dir), ())


def test_a_name_may_hold_the_words_of_several_roles(made_up, tmp_path):
    prefix = 'test-cat-images-train-labels-'
    write(tmp_path, [prefix + name for name in PLAIN], made_up.values())
    assert data.read_data_sets(str(tmp_path), mirrors=()).test.num_examples == 64


def test_the_role_says_what_a_file_must_hold(tmp_path):
    path = tmp_path / 'any name'
    path.write_bytes(idx(np.array([3, 200])))
    assert idx_files.read(str(path), 'labels').items.tolist() == [3, 200]
    with pytest.raises(UserError, match='it has 1 dimensions, and images have 3'):
        idx_files.read(str(path), 'images')


@pytest.fixture
def letters(tmp_path):
    """A folder with 600 images of 20 x 33 in 26 classes, which can be learned."""
    random = np.random.RandomState(0)
    prototypes = random.randint(0, 256, (26, 20, 33))
    bodies = []
    for count in (600, 60):
        labels = np.arange(count) % 26
        noise = random.normal(0, 20, (count, 20, 33))
        bodies += [idx((prototypes[labels] + noise).clip(0, 255)), idx(labels)]
    write(tmp_path / 'letters', PLAIN, bodies)
    return tmp_path / 'letters'


@pytest.mark.parametrize('unroll', [[], ['--dynamic_rnn']])
def test_other_shapes_train_resume_and_are_used(unroll, letters, tmp_path):
    flags = ['--hidden_size', 24, '--lr', 0.01, '--seed', 1, '--device', 'cpu']
    done = call('train_lstm_mnist.py', '--data_dir', 'letters', '--steps', 150,
                '--run_dir', 'run', *flags, *unroll, cwd=tmp_path)
    assert done.returncode == 0 and '(550, 660)' in done.stdout
    assert 'of 20 x 33 pixels, in 26 classes' in done.stderr
    done = call('train_lstm_mnist.py', '--resume', 'run', '--steps', 250, cwd=tmp_path)
    assert done.returncode == 0
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['test_accuracy'] > 0.9
    assert result['dataset'] == str(tmp_path / 'letters')

    network = saved_model.Network(str(tmp_path / 'run'))
    test = data.read_data_sets(str(letters)).test
    rows = network(test.images)
    assert network.shape == (20, 33) and rows.shape == (60, 20, 26)
    assert (rows[:, -1].argmax(1) == test.labels.argmax(1)).mean() == (
        pytest.approx(result['test_accuracy'], abs=1e-5))
    layers = cells.follow(network.weights(), test.images[7], rows[7])
    assert layers[0].c.shape == (20, 24)

    for drawing in [['--rows', 'rows.png']] if unroll else [
            ['--rows', 'rows.gif'], ['--cells', 'cells.png']]:
        done = call('predict.py', 'run', '--test', 7, *drawing, cwd=tmp_path)
        assert (done.returncode, done.error_lines) == (0, [])
        assert done.stdout == 'test image 7: %d, probability %.4f, labelled 7\n' % (
            rows[7, -1].argmax(), rows[7, -1].max())
        assert (tmp_path / drawing[1]).stat().st_size > 1000


def test_the_program_of_the_page_makes_a_data_set(tmp_path):
    with open(os.path.join(ROOT, 'docs', 'your-own-data.md')) as f:
        code, = re.findall(r'```python\n(.*?)```', f.read(), re.S)
    random = np.random.RandomState(0)
    for label, name in enumerate(['ant', 'bee', 'cow']):
        (tmp_path / 'pictures' / name).mkdir(parents=True)
        for number in range(60):
            picture = random.randint(0, 60, (64, 96)).astype(np.uint8)
            picture[20 * label:20 * label + 20] += 150
            Image.fromarray(picture).save(
                str(tmp_path / 'pictures' / name / ('%d.png' % number)))
    # Files that systems and people leave among pictures; no folder of them is a class.
    (tmp_path / 'pictures' / 'an empty folder').mkdir()
    (tmp_path / 'pictures' / 'cow' / 'a folder').mkdir()
    for name in ('.DS_Store', 'readme.txt', 'bee/.DS_Store', 'bee/._1.png',
                 'bee/Thumbs.db', 'bee/notes.txt'):
        (tmp_path / 'pictures' / name).write_bytes(b'no picture')
    made = subprocess.run([sys.executable, '-c', code], cwd=str(tmp_path), check=True,
                          stdout=subprocess.PIPE, universal_newlines=True)
    assert made.stdout == ('not a picture: pictures/bee/Thumbs.db\n'
                           'not a picture: pictures/bee/notes.txt\n'
                           'not a picture: pictures/cow/a folder\n')
    done = call('train_lstm_mnist.py', '--data_dir', 'my_data', '--steps', 100, '--lr',
                0.01, '--hidden_size', 16, '--seed', 1, '--run_dir', 'run', '--device',
                'cpu', cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.endswith('\ntest accuracy 1\n')
    assert ('my_data is not MNIST: 143 images to train with, 12 for validation and 25 '
            'to test with, of 32 x 48 pixels, in 3 classes\n') in done.stderr
    done = call('predict.py', 'run', 'pictures/cow/7.png', '--as_is', cwd=tmp_path)
    assert done.stdout.startswith('pictures/cow/7.png: cow, probability ')
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['class_accuracy'] == {'ant': 1, 'bee': 1, 'cow': 1}
    # The run keeps the names if the files move without them.
    (tmp_path / 'my_data' / 'classes.txt').unlink()
    (tmp_path / 'my_data').rename(tmp_path / 'moved')
    assert call('train_lstm_mnist.py', '--resume', 'run', '--data_dir', 'moved',
                '--steps', 101, cwd=tmp_path).returncode == 0
    done = call('predict.py', 'run', '--test', 3, cwd=tmp_path)
    label = data.read_data_sets(str(tmp_path / 'moved')).test.labels[3].argmax()
    assert done.stdout.endswith(', labelled %s\n' % ['ant', 'bee', 'cow'][label])


def test_the_last_hint_of_a_run_works(tmp_path):
    labels = np.arange(40) % 3
    write(tmp_path / 'few', PLAIN, [idx(np.ones([40, 5, 5])), idx(labels),
                                    idx(np.ones([3, 5, 5])), idx(labels[:3])])
    done = call('train_lstm_mnist.py', '--data_dir', 'few', '--steps', 1,
                '--batch_size', 9, '--hidden_size', 8, '--run_dir', 'run', '--device',
                'cpu', cwd=tmp_path)
    hint, = re.findall('^kept in run; try: .*predict.py (.*)$', done.stderr, re.M)
    assert hint == 'run --test 2 --rows rows.png'
    assert call('predict.py', *hint.split(), cwd=tmp_path).returncode == 0


def test_names_are_read_as_editors_save_them(made_up_dir):
    names = ['\u72d7 %d' % k for k in range(10)]
    for body in ('\n'.join(names), '\ufeff' + '\r\n'.join(names) + '\r\n\r\n'):
        (made_up_dir / 'classes.txt').write_bytes(body.encode())
        assert data.read_data_sets(str(made_up_dir)).source.names == names
    (made_up_dir / 'classes.txt').unlink()
    assert data.read_data_sets(str(made_up_dir)).source.names == list('0123456789')


def test_a_file_is_scaled_to_the_images_of_the_network(letters, tmp_path):
    assert call('train_lstm_mnist.py', '--data_dir', 'letters', '--steps', 1,
                '--run_dir', 'run', '--hidden_size', 8, '--device', 'cpu',
                cwd=tmp_path).returncode == 0
    image = data.read_data_sets(str(letters)).test.images[5]
    grey = np.rint(255 * image).astype(np.uint8).reshape(20, 33)
    Image.fromarray(grey.repeat(3, 0).repeat(3, 1)).save(str(tmp_path / 'a.png'))
    by_file, by_number = (
        call('predict.py', 'run', *args, cwd=tmp_path).stdout.split(': ')[1].split(',')
        for args in (['a.png', '--as_is', '--show', 'seen.png'], ['--test', 5]))
    assert by_file == [by_number[0], by_number[1] + '\n']
