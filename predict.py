"""Names the digit in each image with a network that train_lstm_mnist.py trained.

One line an image goes to stdout: the file, the digit and its probability.
"""
import argparse
import contextlib
import io
import json
import os
import stat
import sys

import data

MAX_SIDE = 10000  # pixels; a phone's largest photographs stay below


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; exits with 2 on bad ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run_dir', metavar='RUN_DIR', type=data.run_folder,
                        help='the run directory of a training that is done')
    parser.add_argument('files', metavar='FILE', nargs='*',
                        help='an image that Pillow reads: PNG, JPEG and so on')
    parser.add_argument('--test', metavar='N', type=int,
                        help='test image N, from 0, of the data set that the '
                        'network was trained on, instead of files')
    parser.add_argument('--data_dir', type=data.folder,
                        help="where --test finds MNIST's four files (default: "
                        'where the training found them)')
    parser.add_argument('--rows', metavar='OUT.png', type=_png,
                        help='draw the one image and, beside each of its rows, '
                        'what the network takes it for when it has read so far')
    flags = parser.parse_intermixed_args(argv)
    if (flags.test is None) == (not flags.files):
        parser.error('name either FILEs or --test N')
    if flags.rows and len(flags.files) > 1:
        parser.error('argument --rows: draws one image, and there are %d'
                     % len(flags.files))
    return flags


def _png(text):
    if not text.lower().endswith('.png'):
        raise argparse.ArgumentTypeError('must end in .png, not %r' % text)
    return text


def load(tf, run_dir):
    """Loads the network of a run that is done.

    Args:
        tf: the module TensorFlow 1.15.
        run_dir: str.

    Returns:
        A function from images, float32 [n, 784] in [0, 1], to the classes'
        probabilities after each row, float32 [n, 28, 10].

    Raises:
        data.UserError: there is no such run, it is not done, or its
            saved_model is damaged.
    """
    path = os.path.join(run_dir, 'saved_model')
    if not os.path.isdir(run_dir):
        raise data.UserError('there is no folder %s: name the directory of a '
                             'run that is done' % run_dir)
    if not os.path.isdir(path):
        raise data.UserError(
            '%s has no saved_model: name the directory of a run that is done, '
            'or go on with it: python train_lstm_mnist.py --resume %s'
            % (run_dir, run_dir))
    steps = _read(run_dir, 'result.json', 'steps')
    if steps != _read(run_dir, 'config.json', 'steps'):
        print('warning: the run in %s is not done: this is its network after '
              '%s steps' % (run_dir, steps or 'fewer'), file=sys.stderr)
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    sess = tf.Session(graph=tf.Graph(), config=config)
    try:
        with open(os.path.join(path, data.SHA256SUMS)) as f:
            if f.read() != data.sha256sums(path):
                raise ValueError('its files are not those of its SHA256SUMS')
        with sess.graph.as_default():
            signature = tf.saved_model.load(
                sess, [tf.saved_model.SERVING], path).signature_def['rows']
    except (tf.errors.OpError, OSError, RuntimeError, KeyError,
            ValueError) as error:
        raise data.UserError('%s is damaged (%s): delete it and run python '
                             'train_lstm_mnist.py --resume %s'
                             % (path, str(error).splitlines()[0], run_dir))
    images = signature.inputs['images'].name
    rows = signature.outputs['probabilities'].name
    return lambda fed: sess.run(rows, {images: fed})


def _read(run_dir, name, key):
    try:
        with open(os.path.join(run_dir, name)) as f:
            return json.load(f)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or not ours


def read_image(path):
    """Reads an image file as the network wants it.

    Args:
        path: str, a file in a format that Pillow reads.

    Returns:
        float32 [784], as `normalise` gives it.

    Raises:
        data.UserError: it can't be read, is no image, has a side of more than
            10,000 pixels, or is blank.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise data.UserError('Pillow is missing: pip install Pillow==9.5.0')
    Image.MAX_IMAGE_PIXELS = None  # MAX_SIDE is the limit here
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError('it is not a file')
        with Image.open(path) as image:
            if image.format == 'EPS':  # a program, which Ghostscript would run
                raise ValueError('it is an EPS')
            if max(image.size) > MAX_SIDE:
                raise ValueError('it is %d x %d pixels, and %d a side are the '
                                 'most' % (*image.size, MAX_SIDE))
            return normalise(ImageOps.exif_transpose(image))
    # Pillow's decoders raise nearly anything on a damaged file.
    except Exception as error:
        raise data.UserError(
            '%s cannot be read (%s): name an image of a digit'
            % (path, getattr(error, 'strerror', None) or error))


def normalise(image):
    """Makes of a picture of a digit what MNIST would have made of it.

    Grey; ink bright on paper that is 0, whichever was darker; cropped to the
    ink; fitted to 20 x 20 with its proportions kept; centred by mass in
    28 x 28 (`data.centre_by_mass`). What is at the edge of the picture is
    taken for paper.

    Args:
        image: `PIL.Image.Image` of any size and mode.

    Returns:
        float32 [784], from 0 for paper to 1 for the most ink.

    Raises:
        ValueError: the picture is blank, or has NaN or infinity in it.
    """
    import numpy as np
    from PIL import Image
    if image.mode[0] in 'IF':  # 16 bits and more, which mode L would cut off
        pixels = np.asarray(image, float)
        if not np.isfinite(pixels).all():
            raise ValueError('it has pixels that are not numbers')
        pixels = pixels.clip(-1e9, 1e9)
        pixels -= pixels.min()
        pixels *= 255 / max(pixels.max(), 1e-9)
        image = Image.fromarray(pixels.astype(np.float32))
    else:
        image = image.convert('RGBA')
    # A photograph's finest detail would only take time.
    image = image.reduce(max(1, max(image.size) // 1000))
    if image.mode == 'RGBA':
        image = _on_paper(image)

    pixels = np.asarray(image, np.float32)
    edge = _edge(pixels)
    paper = np.median(edge)
    ink = pixels - paper
    if -ink.min() > ink.max():
        ink = -ink
    # The paper's own grain and shadows: two standard deviations, were they
    # normally distributed, taken from the median, which ink at the edge leaves
    # as it is.
    ink -= 3 * np.median(np.abs(edge - paper))
    if ink.max() < 25:
        raise ValueError('it is blank')
    ink = np.maximum(ink, 0)
    inked = ink > 0.1 * ink.max()
    (top, bottom), (left, right) = (
        np.flatnonzero(inked.any(axis))[[0, -1]] + [0, 1] for axis in (1, 0))
    ink = Image.fromarray(ink[top:bottom, left:right])
    box = np.asarray(ink.resize(
        [max(1, int(round(20 * side / max(ink.size)))) for side in ink.size],
        Image.BICUBIC))
    box = box.clip(*ink.getextrema())  # cubic interpolation goes beyond
    return data.centre_by_mass(box / box.max()).reshape(784)


def _edge(pixels):
    import numpy as np
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _on_paper(image):
    """Makes a picture in mode RGBA grey, with paper where it was transparent."""
    import numpy as np
    from PIL import Image
    grey, alpha = (np.asarray(band, np.float32)
                   for band in image.convert('LA').split())
    if np.median(_edge(alpha)) > 127:
        paper = np.median(_edge(grey))
    else:  # ink and no paper: as far from the ink as can be
        paper = 255 * (np.average(grey, weights=alpha + 1e-6) < 128)
    return Image.fromarray(paper + (grey - paper) * alpha / 255)


def test_image(flags):
    """Reads the image that --test names.

    Returns:
        float32 [784] in [0, 1], and its label, an int.

    Raises:
        data.UserError: there is no such image, or not that data set.
    """
    dataset, data_dir, sha256 = (_read(flags.run_dir, 'config.json', key) for key
                                 in ('dataset', 'data_dir', 'data_sha256'))
    data_dir = flags.data_dir or data_dir
    if not dataset:
        raise data.UserError('%s does not tell what it was trained on: put back '
                             'a whole config.json' % flags.run_dir)
    with contextlib.redirect_stdout(io.StringIO()):
        test = data.read_data_sets(data_dir, dataset, mirrors=()).test
    if data.fingerprint(dataset, data_dir) != sha256:
        raise data.UserError(
            '%s does not hold the files that %s was trained on: name the '
            'folder that does with --data_dir' % (data_dir, flags.run_dir))
    if not 0 <= flags.test < test.num_examples:
        raise data.UserError('there is no test image %d: name one from 0 to %d'
                             % (flags.test, test.num_examples - 1))
    return test.images[flags.test], test.labels[flags.test].argmax()


def draw_rows(image, probabilities, path):
    """Draws a digit and, beside each row, its classes' probabilities by then.

    Args:
        image: float [784] in [0, 1].
        probabilities: float [28, 10], those after each row.
        path: str, the PNG file to write.

    Raises:
        data.UserError: the system says no, or matplotlib is missing.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise data.UserError('matplotlib is missing: pip install '
                             'matplotlib==3.5.3')
    best = probabilities.argmax(1)
    digit = best[-1]
    # The first row from which on the answer stays.
    decided = max([row + 1 for row in range(28) if best[row] != digit],
                  default=0)
    figure = Figure(figsize=(9, 6), dpi=100, tight_layout=True)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True,
                                  gridspec_kw={'width_ratios': [28, 20]})
    left.imshow(image.reshape(28, 28), cmap='gray_r', aspect='auto')
    left.set_yticks(range(0, 28, 3))
    left.set_xticks([])
    left.set_ylabel('row')
    left.set_title('what is read')
    shades = right.imshow(probabilities, cmap='Blues', vmin=0, vmax=1,
                          aspect='auto')
    right.set_xticks(range(10))
    right.set_title('what it is taken for so far')
    figure.colorbar(shades, ax=right, label='probability')
    for axes in (left, right):
        axes.axhline(decided - 0.5, color='tab:red', linewidth=1)
    figure.suptitle('%d with probability %.4f, the most likely from row %d on'
                    % (digit, probabilities[-1, digit], decided))
    png = io.BytesIO()
    figure.savefig(png, format='png')
    data.write_whole(path, png.getvalue())


@data.reports_errors
def main(argv=None):
    """Names the digits as the flags in argv say; returns the exit status."""
    flags = parse_flags(argv)
    network = load(data.import_tensorflow(), flags.run_dir)
    status = 0
    for path in flags.files or [None]:
        try:
            if path is None:
                image, label = test_image(flags)
                name, labelled = ('test image %d' % flags.test,
                                  ', labelled %d' % label)
            else:
                image, name, labelled = read_image(path), path, ''
        except data.UserError as error:
            print('error: %s' % error, file=sys.stderr)
            status = 1
            continue
        rows, = network([image])
        digit = rows[-1].argmax()
        print('%s: %d, probability %.4f%s'
              % (name, digit, rows[-1, digit], labelled), flush=True)
        if flags.rows:
            draw_rows(image, rows, flags.rows)
    return status


if __name__ == '__main__':
    sys.exit(main())
