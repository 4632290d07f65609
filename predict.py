"""Name the digit in each image with a network that train_lstm_mnist.py trained.

For each image a line goes to stdout: the file, the digit and its probability.
Several digits on even paper have a line each, left to right and top to bottom.
"""
import argparse
import contextlib
import io
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not with -I

import data
from training.environment import import_tensorflow
from training.errors import UserError, reports_errors
from training.flags import folder, run_folder
from training.run_directory import read_json, write_whole

SURE = 0.6  # of MNIST's test images, 0.5 % get a probability below it


def picture(*endings):
    """Return a kind of flag: the name of a file with one of the endings."""
    def parse(text):
        if not text.lower().endswith(endings):
            raise argparse.ArgumentTypeError(
                'must end in %s, not %r' % (' or '.join(endings), text))
        return text
    return parse


def parse_flags(argv=None):
    """Return the flags as an `argparse.Namespace`; exit with 2 on wrong ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run_dir', metavar='RUN_DIR',
                        type=run_folder,
                        help='the run directory of a training that is done')
    parser.add_argument('files', metavar='FILE', nargs='*',
                        help='an image that Pillow reads: PNG, JPEG and so on')
    parser.add_argument('--test', metavar='N', type=int,
                        help='test image N, from 0, of the data set that the '
                        'network was trained on, instead of files')
    parser.add_argument('--data_dir', type=folder,
                        help="where --test, --page and --errors find MNIST's four "
                        'files (default: where the training found them)')
    parser.add_argument('--rows', metavar='OUT.png|OUT.gif',
                        type=picture('.png', '.gif'),
                        help='draw the one image and, beside each of its rows, '
                        'what the network takes it for when it has read so far; '
                        'OUT.gif shows it row by row')
    parser.add_argument('--cells', metavar='OUT.png',
                        type=picture('.png'),
                        help='draw what the gates and the states of each layer do '
                        'with each row of the one image')
    parser.add_argument('--show', metavar='OUT.png', type=picture('.png'),
                        help='draw each FILE, the digit that was found in it, and '
                        'what the network gets of it')
    parser.add_argument('--page', metavar='OUT.html', type=picture('.html'),
                        help='write the network as a page that reads what one draws, '
                        'in a browser, without a server')
    parser.add_argument('--errors', metavar='OUT.png', type=picture('.png'),
                        help='draw which classes of the test set are taken for which, '
                        'and the 20 most probable wrong names; print the accuracy. '
                        '--data_dir may name other data than those of the training')
    parser.add_argument('--as_is', action='store_true',
                        help='only scale each FILE to the size of the images that the '
                        'network reads, if it was trained on other pictures than '
                        'digits')
    parser.add_argument('--device', default='cpu', choices=('cpu', 'gpu'),
                        help='one image is faster on the CPU than a GPU starts '
                        '(default: %(default)s)')
    flags = parser.parse_intermixed_args(argv)
    check_flags(parser, flags)
    return flags


def check_flags(parser, flags):
    """Exit with 2 if flags contradict each other."""
    images = len(flags.files) + (flags.test is not None)
    if sum(map(bool, (flags.files, flags.test is not None, flags.page,
                      flags.errors))) != 1:
        parser.error('name either FILEs, --test N, --page OUT.html or --errors '
                     'OUT.png')
    if flags.show and not flags.files:
        parser.error('argument --show: draws a FILE, and there is none')
    for name in ('rows', 'cells'):
        if getattr(flags, name) and images != 1:
            parser.error('argument --%s: draws one image, and there are %d'
                         % (name, images))
    drawings = [path for path in (flags.rows, flags.cells, flags.show) if path]
    paths = list(map(os.path.realpath, [*drawings, *flags.files]))
    if drawings and len(set(paths)) < len(paths):
        parser.error('a drawing would replace the image or the other drawing: '
                     'name another file')


def read_data(flags):
    """Return the data that the network was trained on, `mnist_files.DataSets`.

    With --errors, --data_dir may name other data.

    Raises:
        UserError: the data are not there, or are others.
    """
    dataset, data_dir, sha256 = (
        read_json(flags.run_dir, 'config.json', key)
        for key in ('dataset', 'data_dir', 'data_sha256'))
    is_other = flags.errors and flags.data_dir
    if is_other:
        dataset = 'mnist'
    data_dir = flags.data_dir or data_dir
    if not dataset:
        raise UserError('%s does not tell what it was trained on: put back a '
                        'whole config.json' % flags.run_dir)
    with contextlib.redirect_stdout(io.StringIO()), \
            contextlib.redirect_stderr(io.StringIO()):
        mnist = data.read_data_sets(data_dir, dataset=dataset, mirrors=())
    if not (is_other or mnist.source.is_of_run(sha256)):
        raise UserError(
            '%s does not hold the files that %s was trained on: use --data_dir to name '
            'the folder that holds them' % (data_dir, flags.run_dir))
    return mnist


def test_image(flags):
    """Return the image that --test names, float32 [pixels] in [0, 1], and its label.

    Raises:
        UserError: there is no such image, or the data set is not that of the run.
    """
    test = read_data(flags).test
    if not 0 <= flags.test < test.num_examples:
        raise UserError('there is no test image %d: name one from 0 to %d'
                        % (flags.test, test.num_examples - 1))
    return test.images[flags.test], test.labels[flags.test].argmax()


def read(flags, path, network):
    """Read an image file, or for None the image that --test names.

    Returns:
        The picture; a list of (box, digit), the digit float32 [pixels] in [0, 1]; the
        name of each; a str with the label, or ''. --test has no picture and no box.

    Raises:
        UserError: it cannot be read.
    """
    if path is None:
        image, label = test_image(flags)
        return None, [(None, image)], ['test image %d' % flags.test], (
            ', labelled ' + network.names[label])
    from reading import images  # needs Pillow and scipy
    picture, digits = images.read_image(path, flags.as_is, network.shape)
    if len(digits) == 1:
        return picture, digits, [path], ''
    if flags.rows or flags.cells:
        raise UserError('--rows and --cells draw one digit, and %s shows %d: crop it '
                        'to one' % (path, len(digits)))
    return picture, digits, [
        '%s, digit %d of %d, %.0f %% from the left and %.0f %% from the top' % (
            path, number, len(digits), 100 * left, 100 * top)
        for number, ((top, _, left, _), _) in enumerate(digits, 1)], ''


def write_page(flags, network):
    """Write the page that --page names."""
    from reading import page
    try:
        test = read_data(flags).test
    except UserError as error:
        if flags.data_dir:
            raise
        test = None
        print('warning: the page has no images of the test set: %s' % error,
              file=sys.stderr)
    write_picture(flags.page, page.make_page(network, test))


def write_errors(flags, network):
    """Draw the picture that --errors names, and print the accuracy."""
    from reading.errors import Errors
    mnist = read_data(flags)
    if (mnist.source.shape != network.shape
            or mnist.source.class_num > len(network.names)):
        raise UserError(
            '%s has images of %d x %d pixels with the labels 0 to %d, and the network '
            'reads %d x %d pixels and knows %d classes: name another folder with '
            '--data_dir' % (mnist.source.name, *mnist.source.shape,
                            mnist.source.class_num - 1, *network.shape,
                            len(network.names)))
    images = mnist.test.images
    errors = Errors(mnist, [rows[-1] for start in range(0, len(images), 500)
                            for rows in network(images[start:start + 500])],
                    network.names)
    print('test accuracy %g' % errors.accuracy)
    write_picture(flags.errors, errors.draw())


def write_picture(path, body):
    """Write a picture or a page, whole or not at all."""
    try:
        write_whole(path, body)
    except OSError as error:
        raise UserError('cannot write %s (%s): fix that, or name another folder'
                        % (path, error.strerror))


def name_digit(flags, network, name, rows, labelled, image):
    """Print what the network says of an image; return digit and probability."""
    digit = rows[-1].argmax()
    answer = '%s, probability %.4f' % (network.names[digit], rows[-1, digit])
    print('%s: %s%s' % (name, answer, labelled))
    if flags.test is not None:
        return answer
    hint = '' if flags.show else '; add --show OUT.png to see what was found'
    if rows[-1, digit] < SURE:
        other = rows[-1].argsort()[-2]
        print('unsure: in %s the digit may also be %s, probability %.4f%s'
              % (name, network.names[other], rows[-1, other], hint), file=sys.stderr)
    elif not flags.as_is:
        from reading import images
        doubt = images.doubt(image.reshape(len(rows), -1))
        if doubt:
            print('unsure: what was found in %s %s%s' % (name, doubt, hint),
                  file=sys.stderr)
    return answer


def draw(flags, network, image, rows):
    """Draw what --rows and --cells ask for."""
    if flags.rows:
        from reading import pictures  # needs matplotlib
        draw_rows = (pictures.animate_rows if flags.rows.lower().endswith('.gif')
                     else pictures.draw_rows)
        write_picture(flags.rows, draw_rows(image, rows, network.names))
    if flags.cells:
        from reading import cells, pictures
        layers = cells.follow(network.weights(), image, rows)
        write_picture(flags.cells, pictures.draw_cells(image, layers))


@reports_errors
def main(argv=None):
    """Name the digits as the flags in argv say; return the exit status."""
    flags = parse_flags(argv)
    import_tensorflow()
    from training import saved_model
    network = saved_model.Network(flags.run_dir, flags.device)
    steps = read_json(flags.run_dir, 'result.json', 'steps')
    if steps != read_json(flags.run_dir, 'config.json', 'steps'):
        print('warning: the run in %s is not done: this is its network after '
              '%s steps' % (flags.run_dir, steps or 'fewer'), file=sys.stderr)
    if flags.page or flags.errors:
        return (write_page if flags.page else write_errors)(flags, network)
    status, seen = 0, []
    for path in flags.files or [None]:
        try:
            picture, digits, names, labelled = read(flags, path, network)
        except UserError as error:
            print('error: %s' % error, file=sys.stderr)
            status = 1
            continue
        for name, (box, image) in zip(names, digits):
            rows, = network([image])
            answer = name_digit(flags, network, name, rows, labelled, image)
            if flags.show:
                # Small, as there may be a thousand.
                step = 1 if len(flags.files) == 1 else max(picture.shape) // 400 + 1
                seen.append((picture[::step, ::step], box, image, answer))
            draw(flags, network, image, rows)
    if seen:
        from reading import pictures  # needs matplotlib
        write_picture(flags.show, pictures.draw_seen(seen, network.shape, flags.as_is))
    return status


if __name__ == '__main__':
    sys.exit(main())
