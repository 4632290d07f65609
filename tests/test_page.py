"""The page that --page writes, in a headless Chromium."""
import base64
import json
import re
import shutil
import time

import browser
import numpy as np
import pytest
import tensorflow as tf
from conftest import call, initialized

import model
from reading import images, page
from training import saved_model
from training.errors import UserError

needs_chromium = pytest.mark.skipif(
    not browser.find(), reason='the page needs a browser: apt install chromium')
# A seven, in a pad whose sides are 1.
SEVEN = [(.22, .24), (.4, .23), (.6, .22), (.77, .22), (.7, .36), (.6, .52),
         (.5, .68), (.43, .85)]
DESKTOP, PHONE = (1100, 900, False), (390, 844, True)


@pytest.fixture
def shown(tmp_path):
    """A function that opens a page and yields a `Browser`."""
    opened = []

    def show(path, language='en-US', size=DESKTOP):
        opened.append(browser.Browser(tmp_path / 'profile', language).__enter__())
        opened[0].open(path, *size)
        return opened[0]

    yield show
    for one in opened:
        one.__exit__()
        assert (one.errors, len(one.requests)) == ([], 1)  # the page alone


@pytest.fixture(scope='module')
def digits_page(digits_run, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'digit.html'
    done = call('predict.py', digits_run, '--page', path)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    return path


def rows_of(chromium, pixels):
    return np.array(chromium.value('%s.map(image => readRows(image))'
                                   % json.dumps(pixels.tolist())))


def draw(chromium, points, touch=False):
    """Draw a stroke on the pad, whose sides are 1."""
    left, top, width, height = chromium.value(
        '(r => [r.left, r.top, r.width, r.height])'
        '(document.getElementById("pad").getBoundingClientRect())')
    chromium.drag([(left + x * width, top + y * height) for x, y in points], touch)


def bars(chromium):
    return [tuple(text.rstrip(' %').split('\n')) for text in chromium.value(
        'Array.from(document.getElementById("bars").children, bar => '
        'bar.firstChild.textContent + "\\n" + bar.lastChild.textContent)')]


@needs_chromium
def test_rows_are_those_of_the_saved_model(digits_run, digits, digits_page, shown):
    pixels = digits.images[:100]
    np.testing.assert_allclose(rows_of(shown(digits_page), pixels),
                               saved_model.Network(str(digits_run))(pixels), atol=1e-4)


@needs_chromium
@pytest.mark.parametrize('language, size', [
    ('en-US', DESKTOP), ('zh-CN', DESKTOP), ('en-US', PHONE), ('zh-CN', PHONE)])
def test_a_seven_that_is_drawn_is_read(
        language, size, digits_run, digits_page, shown, tmp_path):
    chromium = shown(digits_page, language, size)
    is_chinese = language == 'zh-CN'
    assert chromium.text('clear') == ('清除' if is_chinese else 'Clear')
    assert chromium.value('document.documentElement.scrollWidth') == size[0]
    draw(chromium, SEVEN, size[2])
    assert chromium.text('answer') == '7'
    probability = chromium.value('shown.rows[27][7]')
    assert chromium.text('sure') == '%.1f %%' % (100 * probability)
    assert chromium.text('count') == ('第 28 / 28 行' if is_chinese
                                      else 'row 28 of 28')
    assert [name for name, _ in bars(chromium)] == list('0123456789')
    assert max(bars(chromium), key=lambda bar: float(bar[1]))[0] == '7'
    # predict.py gets the same of the same drawing.
    png = base64.b64decode(chromium.value('pad.toDataURL()').split(',')[1])
    (tmp_path / 'seven.png').write_bytes(png)
    np.testing.assert_allclose(
        chromium.value('Array.from(shown.pixels)'),
        images.read_image(str(tmp_path / 'seven.png'))[1][0][1], atol=0.01)
    named = call('predict.py', digits_run, tmp_path / 'seven.png').stdout
    name, said = re.search(r': (\d), probability (\S+)\n', named).groups()
    assert name == '7' and float(said) == pytest.approx(probability, abs=0.01)


def bars_of(probabilities):
    return [(str(digit), '%.1f' % (100 * p)) for digit, p in enumerate(probabilities)]


def ink_of(chromium, name):
    """Return how dark each row of a canvas is, [rows]."""
    return np.array(chromium.value(
        '(canvas => Array.from({length: canvas.height}, (_, y) => '
        'canvas.getContext("2d").getImageData(0, y, canvas.width, 1)'
        '.data.reduce((sum, value) => sum + 255 - value, 0)))'
        '(document.querySelector("%s"))' % name))


@needs_chromium
def test_a_test_image_is_read_row_by_row(digits_run, digits, digits_page, shown):
    image = digits.images[digits.labels[:, 4].argmax()]  # the first four
    rows, = saved_model.Network(str(digits_run))([image])
    chromium = shown(digits_page)
    draw(chromium, SEVEN)
    chromium.value('document.querySelectorAll("#tests button")[4].click()')
    seen = {chromium.text('count') for _ in range(40) if not time.sleep(0.14)}
    assert len(seen) > 15 and 'row 28 of 28' in seen
    assert np.ptp(ink_of(chromium, '#pad')) == 0
    assert bars(chromium) == bars_of(rows[-1])
    for row in (27, 12, 1):  # the slider
        chromium.value('row.value = %d; row.oninput({target: row})' % row)
        assert bars(chromium) == bars_of(rows[row - 1])
        assert chromium.text('answer') == str(rows[row - 1].argmax())
        assert chromium.text('sure').endswith(' so far')
        for layer in (1, 2):
            h = ink_of(chromium, '#layers div:nth-of-type(%d) canvas' % layer)
            assert h.shape == (28,) and h[:row].all() and not h[row:].any()
    assert chromium.value('document.querySelectorAll("#tests button").length') == 10
    chromium.value('play()')
    chromium.value('row.oninput({target: row})')  # stops it
    before = chromium.text('count')
    time.sleep(0.5)
    assert chromium.text('count') == before


@needs_chromium
def test_strokes_are_added_until_the_pad_is_cleared(digits_page, shown):
    chromium = shown(digits_page)
    draw(chromium, SEVEN)
    one = chromium.value('Array.from(shown.pixels)')
    assert chromium.value('document.getElementById("hint").hidden')
    draw(chromium, [(.4, .5), (.8, .5)])
    assert chromium.value('Array.from(shown.pixels)') != one
    chromium.value('document.getElementById("clear").click()')
    assert (chromium.text('answer'), chromium.value('shown')) == ('', None)
    draw(chromium, SEVEN)
    assert chromium.value('Array.from(shown.pixels)') == one


class Network(object):
    """A network with random weights, as `saved_model.Network`."""

    def __init__(self, hidden_size, layer_num, shape, names):
        self.shape, self.names = shape, names
        self._sess = tf.Session(graph=tf.Graph())
        with self._sess.graph.as_default():
            self._images, self._rows = model.build_export(
                hidden_size, layer_num, True, model.Sizes(*shape, len(names)))
            initialized(self._sess)

            for variable in tf.trainable_variables():  # large, for sure answers
                self._sess.run(variable.assign(3 * variable + 0.1))

    def __call__(self, images):
        return self._sess.run(self._rows, {self._images: images})

    def weights(self):
        with self._sess.graph.as_default():
            return self._sess.run({variable.op.name: variable
                                   for variable in tf.trainable_variables()})


@needs_chromium
@pytest.mark.parametrize('hidden_size, layer_num, shape, names', [
    (128, 2, (28, 28), list('0123456789')),
    (5, 1, (12, 20), ['cat', '</script><script>alert(1)', '\u72d7']),
    (7, 3, (30, 8), ['class %d' % k for k in range(13)])])
def test_networks_of_any_size(hidden_size, layer_num, shape, names, shown, tmp_path):
    network = Network(hidden_size, layer_num, shape, names)
    noise = np.random.RandomState(0).rand(20, np.prod(shape)).astype(np.float32)
    (tmp_path / 'page.html').write_bytes(page.make_page(network))
    chromium = shown(tmp_path / 'page.html')
    np.testing.assert_allclose(rows_of(chromium, noise), network(noise), atol=1e-4)
    draw(chromium, SEVEN)
    pixels = np.reshape(chromium.value('Array.from(shown.pixels)'), shape)
    ink = np.argwhere(pixels > 0.1)
    # The larger side is fitted to 20 / 28 of the image.
    assert max((np.ptp(ink, 0) + 1) / shape) == pytest.approx(
        20 / 28, abs=0.5 / min(shape))
    probabilities = dict(zip(names, network([pixels.reshape(-1)])[0, -1]))
    shares = bars(chromium)
    assert len(shares) == min(10, len(names))
    for name, share in shares:
        assert float(share) == pytest.approx(100 * probabilities[name], abs=0.06)
    assert chromium.text('answer') == max(probabilities, key=probabilities.get)
    milliseconds = chromium.value(
        'Array.from({length: 20}, () => { const start = performance.now();'
        'readRows(shown.pixels); return performance.now() - start; })')
    assert min(milliseconds) < 30


def test_a_network_that_reads_otherwise_gets_no_page():
    network = Network(5, 1, (6, 6), ['0', '1'])
    read = network.weights
    network.weights = lambda: dict(read(), W=read()['W'] + 1)
    page.make_page(network)
    network.weights = lambda: dict(read(), W=read()['W'][::-1])
    with pytest.raises(UserError, match='this network is another'):
        page.make_page(network)


def test_a_page_without_the_data(digits_run, made_up_dir, tmp_path):
    shutil.copytree(str(digits_run), str(tmp_path / 'run'))
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    config.update(dataset='mnist', data_dir='elsewhere')
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    done = call('predict.py', 'run', '--page', 'a.html', cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, '')
    assert done.stderr.startswith(
        'warning: the page has no images of the test set: MNIST is not there: ')
    assert '"tests": []' in (tmp_path / 'a.html').read_text(encoding='utf-8')
    done = call('predict.py', 'run', '--page', 'b.html', '--data_dir', 'made_up',
                cwd=tmp_path)
    assert done.returncode == 1 and not (tmp_path / 'b.html').exists()
    line, = done.error_lines
    assert line.startswith('error: made_up does not hold the files that run was ')
