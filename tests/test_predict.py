import json
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, call, idx, pixels, run
from PIL import Image, ImageDraw
from test_photographs import draw

from reading import cells, pictures
from training import mnist_files, saved_model

SCRIPT = 'predict.py'


def test_digits_in_files_are_named(digits_run, digits, tmp_path):
    names = []
    for i in range(30):
        names.append(str(tmp_path / ('%d.%s' % (i, ('png', 'jpg', 'gif')[i % 3]))))
        Image.fromarray(255 - pixels(digits.images[i])).resize(
            (140, 140), Image.BICUBIC).save(names[-1])
    done = call(SCRIPT, digits_run, *names)
    assert done.returncode == 0 and not done.error_lines
    lines = [re.fullmatch(r'(.*): (\d), probability (\d\.\d{4})', line)
             for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == names
    labels = digits.labels[:30].argmax(1)
    right = [int(line[2]) == label for line, label in zip(lines, labels)]
    assert np.mean(right) > 0.75
    assert all(float(line[3]) > 0.1 for line in lines)


def test_a_low_probability_is_said_to_be_unsure(digits_run, digits, tmp_path):
    rows = saved_model.Network(str(digits_run))(digits.images)[:, -1]
    for sure, i in enumerate(rows.max(1).argsort()[[0, -1]]):
        Image.fromarray(pixels(digits.images[i])).save(str(tmp_path / 'digit.png'))
        done = call(SCRIPT, digits_run, 'digit.png', '--as_is', cwd=tmp_path)
        *_, other, best = rows[i].argsort()
        assert done.stdout == 'digit.png: %d, probability %.4f\n' % (
            best, rows[i, best])
        unsure = ('unsure: in digit.png the digit may also be %d, probability %.4f'
                  % (other, rows[i, other]))
        assert (unsure in done.stderr) is not bool(sure)


def test_after_a_bad_file_the_others_are_named(
        digits_run, digits, tmp_path):
    Image.fromarray(pixels(digits.images[0])).save(str(tmp_path / 'good.png'))
    done = call(SCRIPT, digits_run, 'good.png', 'missing.png', 'good.png',
               cwd=tmp_path)
    assert done.returncode == 1
    first, last = done.stdout.splitlines()
    assert first == last and first.startswith('good.png: ')


def test_a_test_image_and_its_rows(digits_run, digits, tmp_path):
    done = call(SCRIPT, digits_run, '--test', 4, '--rows', 'rows.png',
               cwd=tmp_path)
    digit, probability, label = re.fullmatch(
        r'test image 4: (\d), probability (\d\.\d{4}), labelled (\d)\n',
        done.stdout).groups()
    assert int(label) == digits.labels[4].argmax()
    rows, = saved_model.Network(str(digits_run))(digits.images[4:5])
    assert rows.shape == (28, 10)
    assert rows[-1].argmax() == int(digit)
    assert '%.4f' % rows[-1].max() == probability
    with Image.open(str(tmp_path / 'rows.png')) as image:
        assert image.format == 'PNG' and image.size == (900, 600)
    call(SCRIPT, digits_run, '--test', 4, '--rows', 'rows.GIF', cwd=tmp_path)
    assert (tmp_path / 'rows.GIF').read_bytes() == pictures.animate_rows(
        digits.images[4], rows, list('0123456789'))


def test_the_cells_of_a_test_image(digits_run, digits, tmp_path):
    done = call(SCRIPT, digits_run, '--test', 4, '--cells', 'cells.PNG',
                cwd=tmp_path)
    assert done.returncode == 0 and not done.error_lines
    network = saved_model.Network(str(digits_run))
    layers = cells.follow(network.weights(), digits.images[4],
                          network(digits.images[4:5])[0])
    assert (tmp_path / 'cells.PNG').read_bytes() == pictures.draw_cells(
        digits.images[4], layers)


def damaged(name, change):
    def damage(run_dir):
        path = run_dir / name
        path.write_bytes(change(path.read_bytes()))
    return damage


@pytest.mark.parametrize('change, steps', [
    (lambda run_dir: damaged('config.json', lambda body: body.replace(
        b'"steps": 500', b'"steps": 900'))(run_dir), '500'),
    (lambda run_dir: (run_dir / 'result.json').unlink(), 'fewer')])
def test_a_run_that_is_not_done_warns(change, steps, digits_run, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    change(tmp_path / 'run')
    done = call(SCRIPT, '--test', 0, 'run', cwd=tmp_path)
    assert re.fullmatch('test image 0: .*\n', done.stdout)
    assert ('warning: the run in run is not done: this is its network after %s '
            'steps' % steps) in done.stderr.splitlines()


def test_stdout_that_takes_nothing(digits_run):
    with open('/dev/full', 'w') as full:
        done = run(SCRIPT, digits_run, '--test', 0, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        'error: cannot write stdout (No space left on device), so the rest of it is '
        'lost: fix that before the next run')


def test_a_test_image_from_moved_data(digits_run, made_up_dir, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'config.json'
    config = json.loads(path.read_text())
    config.update(dataset='mnist', data_dir='elsewhere',
                  data_sha256=mnist_files.open_files(str(made_up_dir)).sha256)
    path.write_text(json.dumps(config))
    done = call(SCRIPT, 'run', '--test', 63, '--data_dir', 'made_up',
               cwd=tmp_path)
    assert re.fullmatch('test image 63: .*, labelled 3\n', done.stdout)


@pytest.mark.parametrize('package, what', [
    ('PIL', 'Pillow'), ('scipy', 'scipy'), ('matplotlib', 'matplotlib')])
def test_a_package_is_missing(package, what, digits_run, digits, tmp_path):
    Image.fromarray(pixels(digits.images[0])).save(str(tmp_path / 'a.png'))
    (tmp_path / (package + '.py')).write_text('raise ImportError')
    done = run(SCRIPT, digits_run, 'a.png', '--rows', 'rows.png', cwd=tmp_path,
               PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    line, = done.error_lines
    assert re.match('error: %s is missing: pip install %s==' % (what, what), line)
    pinned = open(os.path.join(ROOT, 'requirements.txt')).read().split()
    assert line.split()[-1] in pinned


@pytest.mark.parametrize('error, line', [
    (tf.errors.ResourceExhaustedError(None, None, 'OOM'),
     'error: out of memory (OOM): stop other programs, or lower --batch_size'),
    (tf.errors.InternalError(None, None, 'Blas GEMM launch failed'),
     'error: the GPU failed (Blas GEMM launch failed): ')])
@pytest.mark.parametrize('of, name', [
    (tf.Session, '__init__'), (tf.saved_model, 'load'), (tf.Session, 'run')])
def test_memory_or_the_gpu_fails(of, name, error, line, digits_run, monkeypatch,
                                 tmp_path):
    """A short memory or a bad GPU is not called damage."""
    function = getattr(of, name)

    def fail(*args, **kwargs):
        # Loading runs the session, too.
        if name == 'run' and not isinstance(list(args[2].values())[0], list):
            return function(*args, **kwargs)
        raise error

    monkeypatch.setattr(of, name, fail)
    done = call(SCRIPT, digits_run, '--test', 0, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(line)


@pytest.mark.parametrize('bits', [8, 16])
def test_show_draws_the_picture_and_what_the_network_gets(
        bits, digits_run, digits, tmp_path):
    page = 255 - np.pad(pixels(digits.images[0]), 60, 'constant')
    Image.fromarray(page if bits == 8 else page.astype(np.int32) * 200).save(
        str(tmp_path / 'a.png'))
    done = call(SCRIPT, digits_run, 'a.png', '--show', 'seen.png', cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, '')
    with Image.open(str(tmp_path / 'seen.png')) as seen:
        assert seen.size == (900, 500)
        red = np.argwhere((np.asarray(seen.convert('RGB')) == [214, 39, 40]).all(-1))
    assert red.size  # the box
    as_is = call(SCRIPT, digits_run, 'a.png', '--as_is', cwd=tmp_path)
    assert as_is.returncode == 0 and as_is.stdout != done.stdout


def test_several_digits_have_a_line_each_and_no_rows(digits_run, tmp_path):
    page = np.concatenate([draw(3, 8)[0], draw(13, 8)[0]], 1)
    Image.fromarray(page.astype(np.uint8)).save(str(tmp_path / 'a.png'))
    done = call(SCRIPT, digits_run, 'a.png', '--show', 'seen.png', cwd=tmp_path)
    lines = [re.fullmatch(r'a.png, digit (\d) of 2, (\d+) % from the left and \d+ % '
                          r'from the top: \d, probability 0\.\d{4}', line)
             for line in done.stdout.splitlines()]
    assert [line[1] for line in lines] == ['1', '2']
    assert 0 < int(lines[0][2]) < 50 < int(lines[1][2])
    with Image.open(str(tmp_path / 'seen.png')) as seen:
        assert seen.size == (600, 170)
    done = call(SCRIPT, digits_run, 'a.png', '--rows', 'rows.png', cwd=tmp_path)
    assert done.returncode == 1 and done.error_lines == [
        'error: --rows and --cells draw one digit, and a.png shows 2: crop it to one']


def test_a_doubt_is_said_and_the_hint_is_not_repeated(digits_run, tmp_path):
    image = Image.new('L', (300, 300), 235)
    ImageDraw.Draw(image).line(  # a wave
        [(30 + i, 150 + 60 * np.sin(i / 20)) for i in range(240)], 30, 8)
    image.save(str(tmp_path / 'a.png'))
    for flags, hint in (([], '; add --show OUT.png to see what was found'),
                        (['--show', 'seen.png'], '')):
        done = call(SCRIPT, digits_run, 'a.png', *flags, cwd=tmp_path)
        line, = done.stderr.splitlines()
        assert line.startswith('unsure: ') and line.endswith(hint)
        assert ('add --show' in line) is bool(hint)


def test_show_draws_all_files_that_were_named(digits_run, digits, tmp_path):
    names = ['%d.png' % i for i in range(8)]
    for name, image in zip(names, digits.images):
        Image.fromarray(255 - pixels(image)).save(str(tmp_path / name))
    done = call(SCRIPT, digits_run, *names, 'none.png', '--show', 'seen.png',
                cwd=tmp_path)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 8
    with Image.open(str(tmp_path / 'seen.png')) as seen:
        assert seen.size == (1800, 340)


@pytest.mark.parametrize('flags', [
    ['--test', 3, '--show', 'a.png'], ['a.png', 'b.png', '--rows', 'c.png'],
    ['a.png', '--show', 'a.png'], ['a.png', '--show', 'a.jpg']])
def test_drawings_need_a_file_and_another_name(flags, digits_run, tmp_path):
    assert call(SCRIPT, digits_run, *flags, cwd=tmp_path).returncode == 2


def test_a_matplotlib_that_does_not_start_is_an_error(digits_run, tmp_path):
    done = run(SCRIPT, digits_run, '--test', 1, '--rows', 'rows.png', cwd=tmp_path,
               MPLBACKEND='nonsense')
    assert done.returncode == 1 and done.stdout.startswith('test image 1: ')
    line, = done.error_lines
    assert line.startswith("error: matplotlib does not start (Key backend: 'nonsense'")
    assert line.endswith('check MPLBACKEND and matplotlibrc')


def test_errors_of_a_run(digits_run, tmp_path):
    done = call(SCRIPT, digits_run, '--errors', 'errors.png', cwd=tmp_path)
    result = json.loads((digits_run / 'result.json').read_text())
    assert (done.returncode, done.stdout, done.stderr) == (
        0, 'test accuracy %g\n' % result['test_accuracy'], '')
    assert (tmp_path / 'errors.png').read_bytes() == (
        digits_run / 'errors.png').read_bytes()


def test_errors_on_other_data(digits_run, digits, tmp_path):
    images, named = digits.images[:60], saved_model.Network(str(digits_run))(
        digits.images[:60])[:, -1].argmax(1)
    labels = (named + (np.arange(60) < 25)) % 10
    for name in mnist_files.FILES:
        (tmp_path / name).write_bytes(idx(
            images.reshape(-1, 28, 28) * 255 if 'images' in name else labels))
    done = call(SCRIPT, digits_run, '--errors', 'errors.png', '--data_dir', '.',
                cwd=tmp_path)
    assert (done.stdout, done.stderr) == ('test accuracy %g\n' % (35 / 60), '')
    with Image.open(str(tmp_path / 'errors.png')) as image:
        assert image.size == (1300, 700)


@pytest.mark.parametrize('shape, class_num', [((28, 28), 13), ((28, 20), 10)])
def test_errors_on_data_that_do_not_fit(shape, class_num, digits_run, tmp_path):
    labels = np.arange(40) % class_num
    for name in mnist_files.FILES:
        (tmp_path / name).write_bytes(idx(
            np.ones([40, *shape]) if 'images' in name else labels))
    done = call(SCRIPT, digits_run, '--errors', 'errors.png', '--data_dir', tmp_path,
                cwd=tmp_path)
    assert done.error_lines == [
        'error: %s has images of 28 x %d pixels with the labels 0 to %d, and the '
        'network reads 28 x 28 pixels and knows 10 classes: name another folder with '
        '--data_dir' % (tmp_path, shape[1], class_num - 1)]
    assert done.returncode == 1 and not (tmp_path / 'errors.png').exists()


def test_classes_have_the_names_of_the_run(digits_run, digits, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    path = tmp_path / 'run' / 'config.json'
    names = ['class %s' % name for name in 'abcdefghij']

    def named(value):
        config = dict(json.loads(path.read_text()), class_names=value)
        path.write_text(json.dumps(config))
        return call(SCRIPT, 'run', '--test', 4, cwd=tmp_path).stdout

    row = saved_model.Network(str(digits_run))(digits.images[4:5])[0, -1]
    best, label = row.argmax(), digits.labels[4].argmax()
    assert named(names) == 'test image 4: %s, probability %.4f, labelled %s\n' % (
        names[best], row[best], names[label])
    for damaged in (None, 'abcdefghij', names[1:]):
        assert named(damaged) == 'test image 4: %d, probability %.4f, labelled %d\n' % (
            best, row[best], label)
