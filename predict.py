"""Names the digit in each image with a network that train_lstm_mnist.py trained.

One line an image goes to stdout: the file, the digit and its probability.
"""
import argparse
import contextlib
import io
import os
import sys

import data
from training import command_line, datasets, packages
from training.errors import UserError, reports_errors
from training.files import write_whole
from training.run_directory import read_json


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; exits with 2 on bad ones."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run_dir', metavar='RUN_DIR',
                        type=command_line.run_folder,
                        help='the run directory of a training that is done')
    parser.add_argument('files', metavar='FILE', nargs='*',
                        help='an image that Pillow reads: PNG, JPEG and so on')
    parser.add_argument('--test', metavar='N', type=int,
                        help='test image N, from 0, of the data set that the '
                        'network was trained on, instead of files')
    parser.add_argument('--data_dir', type=command_line.folder,
                        help="where --test finds MNIST's four files (default: "
                        'where the training found them)')
    parser.add_argument('--rows', metavar='OUT.png|OUT.gif',
                        type=command_line.picture('.png', '.gif'),
                        help='draw the one image and, beside each of its rows, '
                        'what the network takes it for when it has read so far; '
                        'OUT.gif shows it row by row')
    parser.add_argument('--cells', metavar='OUT.png',
                        type=command_line.picture('.png'),
                        help='draw what the gates and the states of each layer do '
                        'with each row of the one image')
    flags = parser.parse_intermixed_args(argv)
    if (flags.test is None) == (not flags.files):
        parser.error('name either FILEs or --test N')
    for name in ('rows', 'cells'):
        if getattr(flags, name) and len(flags.files) > 1:
            parser.error('argument --%s: draws one image, and there are %d'
                         % (name, len(flags.files)))
    paths = [os.path.realpath(path)
             for path in [flags.rows, flags.cells, *flags.files] if path]
    if len(set(paths)) < len(paths) and (flags.rows or flags.cells):
        parser.error('a drawing would replace the image or the other drawing: '
                     'name another file')
    return flags


def test_image(flags):
    """Reads the image that --test names.

    Returns:
        float32 [784] in [0, 1], and its label, an int.

    Raises:
        UserError: there is no such image, or not that data set.
    """
    dataset, data_dir, sha256 = (
        read_json(flags.run_dir, 'config.json', key)
        for key in ('dataset', 'data_dir', 'data_sha256'))
    data_dir = flags.data_dir or data_dir
    if not dataset:
        raise UserError('%s does not tell what it was trained on: put back a '
                        'whole config.json' % flags.run_dir)
    with contextlib.redirect_stdout(io.StringIO()):
        test = data.read_data_sets(data_dir, dataset=dataset, mirrors=()).test
    if datasets.fingerprint(dataset, data_dir) != sha256:
        raise UserError(
            '%s does not hold the files that %s was trained on: name the folder '
            'that does with --data_dir' % (data_dir, flags.run_dir))
    if not 0 <= flags.test < test.num_examples:
        raise UserError('there is no test image %d: name one from 0 to %d'
                        % (flags.test, test.num_examples - 1))
    return test.images[flags.test], test.labels[flags.test].argmax()


def read(flags, path):
    """Reads an image file, or for None the image that --test names.

    Returns:
        float32 [784] in [0, 1]; its name; and what is known of it, a str.

    Raises:
        UserError: it can't be read.
    """
    if path is None:
        image, label = test_image(flags)
        return image, 'test image %d' % flags.test, ', labelled %d' % label
    from training import images  # which needs Pillow
    return images.read_image(path), path, ''


@reports_errors
def main(argv=None):
    """Names the digits as the flags in argv say; returns the exit status."""
    flags = parse_flags(argv)
    packages.import_tensorflow()
    from training import saved_model
    network = saved_model.Network(flags.run_dir)
    steps, are_all = saved_model.steps_behind(flags.run_dir)
    if not are_all:
        print('warning: the run in %s is not done: this is its network after '
              '%s steps' % (flags.run_dir, steps or 'fewer'), file=sys.stderr)
    status = 0
    for path in flags.files or [None]:
        try:
            image, name, known = read(flags, path)
        except UserError as error:
            print('error: %s' % error, file=sys.stderr)
            status = 1
            continue
        rows, = network([image])
        digit = rows[-1].argmax()
        print('%s: %d, probability %.4f%s'
              % (name, digit, rows[-1, digit], known))
        if flags.rows:
            from training import figures  # which needs matplotlib
            draw = (figures.film_rows if flags.rows.lower().endswith('.gif')
                    else figures.draw_rows)
            write_whole(flags.rows, draw(image, rows))
        if flags.cells:
            from training import cells, figures
            layers = cells.follow(network.weights(), image, rows)
            write_whole(flags.cells, figures.draw_cells(image, layers))
    return status


if __name__ == '__main__':
    sys.exit(main())
