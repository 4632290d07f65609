"""The catalogue of bad input: each gets its error line, and nothing changes.

A case has a command, what was done before to the folder where it runs, the exit
status, and the whole error lines, which come last. The folder has data/ in MNIST's
format, run/, a finished run of 20 steps on it, and digit.png.
"""
import gzip
import json
import os
import re
import shlex
import shutil
import stat
import struct
import sys
import zlib

import numpy as np
import pytest
from conftest import (
    NOWHERE,
    call,
    full_disk,
    idx,
    make_up,
    once,
    run,
    send,
    without_root,
)
from PIL import Image

from training import mnist_files
from training.run_directory import RunDirectory

TRAIN = 'train_lstm_mnist.py --steps 1 --hidden_size 8 --layer_num 1 '
ON_DATA = TRAIN + '--data_dir data '
RESUME = 'train_lstm_mnist.py --resume run --steps 30 '
CHECK = 'data.py data ' + NOWHERE


@pytest.fixture(scope='module')
def begun(made_up, tmp_path_factory):
    """The folder that each case gets a copy of."""
    def make(folder):
        (folder / 'data').mkdir()
        for name, body in made_up.items():
            (folder / 'data' / name).write_bytes(body)
        Image.fromarray(np.pad(np.full([20, 4], 200, np.uint8), 9,
                               'constant')).save(str(folder / 'digit.png'))
        assert call(*(ON_DATA + '--dynamic_rnn --steps 20 --save_every 10 '
                      '--seed 3 --run_dir run').split(),
                    cwd=folder).returncode == 0
        # Each case reads its own copy of the data.
        config = folder / 'run' / 'config.json'
        config.write_text(config.read_text().replace(
            json.dumps(str(folder / 'data')), '"data"'))

    return once(tmp_path_factory, 'begun', make)


# Damage to the folder.

def do(function, name, *args):
    """Return a damage: function(path of name, *args)."""
    return lambda folder: function(folder / name, *args)


def change(path, of):
    path.write_bytes(of(path.read_bytes()))


def cut(place):
    return lambda body: body[:int(place * len(body))]


def flip(place):
    """Flip a bit at a byte, or at a share of the bytes."""
    def of(body):
        body = bytearray(body)
        body[int(place * len(body)) if isinstance(place, float)
             else place] ^= 0x10
        return bytes(body)
    return of


def put(body):
    return lambda _: body


def remove(path):
    shutil.rmtree(str(path)) if path.is_dir() else path.unlink()


def instead(make):
    """Put what make(path) makes in the place of a file."""
    def of(path):
        remove(path)
        make(path)
    return of


def not_done(*damages):
    """Return a damage: the run was stopped before its end, and then damaged."""
    def damage(folder):
        (folder / 'run' / 'result.json').unlink()
        for each in damages:
            each(folder)
    return damage


def both_checkpoints(part, function, *args):
    return not_done(*[do(function, 'run/model.ckpt-%d.%s' % (step, part), *args)
                      for step in (10, 20)])


def config(**changes):
    def of(body):
        for name, (old, new) in changes.items():
            assert b'"%s": %s' % (name.encode(), old) in body
            body = body.replace(b'"%s": %s' % (name.encode(), old),
                                b'"%s": %s' % (name.encode(), new))
        return body
    return not_done(do(change, 'run/config.json', of))


def header(*numbers, items=b''):
    return gzip.compress(struct.pack('>%dI' % len(numbers), *numbers) + items, 1)


def png(width, height, pixels):
    """A PNG that claims a size, whatever its pixels."""
    def chunk(kind, body):
        return (struct.pack('>I', len(body)) + kind + body
                + struct.pack('>I', zlib.crc32(kind + body)))
    return (b'\x89PNG\r\n\x1a\n'
            + chunk(b'IHDR', struct.pack('>2I5B', width, height, 8, 0, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(pixels)) + chunk(b'IEND', b''))


def images(folder):
    """Make files that are no image, have wrong headers, or show nothing."""
    for name, body in {
            'text.png': b'no image', 'empty.png': b'',
            'page.jpg': b'<html>404</html>', 'archive.png': idx(np.zeros(9)),
            'cut.png': cut(0.6)((folder / 'digit.png').read_bytes()),
            'short.png': png(200, 200, bytes(201 * 10)),
            'bomb.png': png(40000, 40000, bytes(10 ** 6)),
            'program.png': b'%!PS-Adobe-3.0 EPSF-3.0\n'
                           b'%%BoundingBox: 0 0 9 9\n%%EndComments\n'}.items():
        (folder / name).write_bytes(body)
    for name, image in {
            'blank.png': Image.new('L', (50, 50), 255),
            'clear.png': Image.new('RGBA', (50, 50), (0, 0, 0, 0)),
            'flat.png': Image.new('I', (50, 50), 7),
            'one.png': Image.new('L', (1, 1), 0),
            'wide.png': Image.new('1', (1000000, 3), 1),
            'nan.tif': Image.fromarray(np.full([9, 9], np.nan, 'f4'))}.items():
        image.save(str(folder / name))
    (folder / 'folder.png').mkdir()
    os.mkfifo(str(folder / 'fifo.png'))


IMAGES = {
    'text.png': "cannot identify image file 'text.png'",
    'empty.png': "cannot identify image file 'empty.png'",
    'page.jpg': "cannot identify image file 'page.jpg'",
    'archive.png': "cannot identify image file 'archive.png'",
    'cut.png': 'image file is truncated',
    'short.png': 'it is blank',
    'bomb.png': 'it is 40000 x 40000 pixels, and 10000 a side are the most',
    'program.png': 'it is an EPS',
    'nan.tif': 'it has pixels that are not numbers',
    'blank.png': 'it is blank',
    'clear.png': 'it is blank',
    'flat.png': 'it is blank',
    'one.png': 'it is blank',
    'wide.png': 'it is 1000000 x 3 pixels, and 10000 a side are the most',
    'folder.png': 'it is not a file',
    'fifo.png': 'it is not a file',
    'missing.png': 'No such file or directory',
}


# The cases.

CASES = {}


def case(name, command, damage, *lines, status=1):
    assert name not in CASES
    CASES[name] = command, damage, status, lines


def usage(flags, why, script='train_lstm_mnist.py'):
    case(script + ' ' + flags, script + ' ' + flags, None,
         script + ': error: ' + why, status=2)


for flags, why in {
        '--lr 0': "a number above 0, not '0'",
        '--lr -0.1': "a number above 0, not '-0.1'",
        '--lr nan': "a number above 0, not 'nan'",
        '--lr inf': "a number above 0, not 'inf'",
        '--lr fast': "a number above 0, not 'fast'",
        '--batch_size 0': "a whole number, 1 or more, not '0'",
        '--batch_size -1': "a whole number, 1 or more, not '-1'",
        '--batch_size 12.5': "a whole number, 1 or more, not '12.5'",
        '--keep_prob 0': "a number above 0 and at most 1, not '0'",
        '--keep_prob 1.5': "a number above 0 and at most 1, not '1.5'",
        '--keep_prob -0.5': "a number above 0 and at most 1, not '-0.5'",
        '--keep_prob nan': "a number above 0 and at most 1, not 'nan'",
        '--hidden_size 0': "a whole number from 1 to 8192, not '0'",
        '--hidden_size 8193': "a whole number from 1 to 8192, not '8193'",
        '--layer_num 0': "a whole number from 1 to 64, not '0'",
        '--layer_num 65': "a whole number from 1 to 64, not '65'",
        '--steps 0': "a whole number from 1 to 2147483647, not '0'",
        '--steps 1e3': "a whole number from 1 to 2147483647, not '1e3'",
        '--steps 100000000000000000000 --lr_schedule linear':
            "a whole number from 1 to 2147483647, not '100000000000000000000'",
        '--seed -1': "a whole number from 0 to 2147483646, not '-1'",
        '--seed 2147483647':
            "a whole number from 0 to 2147483646, not '2147483647'",
        '--log_every 0': "a whole number, 1 or more, not '0'",
        '--save_every 0': "a whole number, 1 or more, not '0'",
        '--mirror storage.example.com/mnist':
            'an address that begins with http:// or https://, not '
            "'storage.example.com/mnist'",
        '--mirror ftp://127.0.0.1/':
            "an address that begins with http:// or https://, not "
            "'ftp://127.0.0.1/'",
        '--mirror http://[1/':
            "an address that begins with http:// or https://, not 'http://[1/'",
        '--mirror http://127.0.0.1:abc/':
            'an address that begins with http:// or https://, not '
            "'http://127.0.0.1:abc/'",
        "--mirror 'http://127.0.0.1/a b'":
            'an address that begins with http:// or https://, not '
            "'http://127.0.0.1/a b'",
        "--data_dir ''": 'the name of a folder',
        "--run_dir ''": 'the name of a folder',
        "--resume ''": 'the name of a folder'}.items():
    usage(flags, 'argument %s: must be %s' % (flags.split()[0], why))
for flags, script in (("--run_dir 'runs/lr[1]'", 'train_lstm_mnist.py'),
                      ("--resume 'a*'", 'train_lstm_mnist.py'),
                      ("'a?' digit.png", 'predict.py'),
                      ("--run_dir 'a\nb'", 'train_lstm_mnist.py'),
                      ("--run_dir '\udcff'", 'train_lstm_mnist.py')):
    flag, name = shlex.split('RUN_DIR ' + flags)[-2:]
    if script == 'predict.py':
        flag, name = 'RUN_DIR', 'a?'
    usage(flags, 'argument %s: must not contain * ? [ ] \\, which TensorFlow takes '
          'for a pattern, or characters that cannot be printed, not %a'
          % (flag, name), script)
usage('--lr', 'argument --lr: expected one argument')
usage('--dataset cifar', "argument --dataset: invalid choice: 'cifar' (choose "
      "from 'mnist', 'digits')")
usage('--device tpu', "argument --device: invalid choice: 'tpu' (choose from "
      "'auto', 'gpu', 'cpu')")
usage('--resume run --run_dir b', 'argument --run_dir: not with --resume, which '
      'names the folder itself')
usage('--step 5', 'unrecognized arguments: --step 5')
usage('100', 'unrecognized arguments: 100')
usage('--ema_decay 0.995', 'unrecognized arguments: --ema_decay 0.995')
ONE_OF = 'name either FILEs, --test N, --page OUT.html or --errors OUT.png'
for flags, why in {
        '': 'the following arguments are required: RUN_DIR, FILE',
        'run': ONE_OF, 'run a.png --test 1': ONE_OF,
        'run --test 1 --page o.html': ONE_OF, 'run a.png --errors o.png': ONE_OF,
        'run --page o.htm': "argument --page: must end in .html, not 'o.htm'",
        'run --page o.html --rows o.png':
            'argument --rows: draws one image, and there are 0',
        'run a.png b.png --rows o.png':
            'argument --rows: draws one image, and there are 2',
        'run --rows o.png a.png b.png':
            'argument --rows: draws one image, and there are 2',
        'run a.png --rows o.pdf':
            "argument --rows: must end in .png or .gif, not 'o.pdf'",
        'run a.png b.png --cells o.png':
            'argument --cells: draws one image, and there are 2',
        'run a.png --cells o.gif':
            "argument --cells: must end in .png, not 'o.gif'",
        'run a.png --rows ./a.png':
            'a drawing would replace the image or the other drawing: name another '
            'file',
        'run a.png --rows o.png --cells o.png':
            'a drawing would replace the image or the other drawing: name another '
            'file',
        'run --test x': "argument --test: invalid int value: 'x'",
        "'' a.png":
            'argument RUN_DIR: must be the name of a folder'}.items():
    usage(flags, why, 'predict.py')
usage("''", 'argument data_dir: must be the name of a folder', 'data.py')
usage('data ftp://127.0.0.1/', 'argument mirror: must be an address that begins '
      "with http:// or https://, not 'ftp://127.0.0.1/'", 'data.py')

for name, body in make_up().items():
    path, pictures = 'data/' + name, 'images' in name
    count = 5256 if 'train' in name else 64
    items = count * 784 if pictures else count
    magic, other = (2051, 2049) if pictures else (2049, 2051)
    shape = (28, 28) if pictures else ()

    def damaged(how, of, why):
        case('%s: %s' % (name, how), CHECK, do(change, path, of),
             "error: %s is damaged, or not in MNIST's format (%s): put a whole file in "
             'its place, or name another folder with --data_dir' % (path, why))

    ended = ('Compressed file ended before the end-of-stream marker was '
             'reached')
    damaged('empty', put(b''), 'it does not begin as an IDX file')
    damaged('cut in the gzip header', lambda body: body[:5], ended)
    damaged('cut in the middle', cut(0.5), ended)
    damaged('cut in the trailer', lambda body: body[:-3], ended)
    damaged('bit flipped in the gzip header', flip(0),
            'it does not begin as an IDX file')
    crc = zlib.crc32(gzip.decompress(body))
    damaged('bit flipped in the sum', flip(-6), 'CRC check failed %s != %s'
            % (hex(crc ^ 1 << 20), hex(crc)))
    damaged('bit flipped in the length', flip(-1),
            'Incorrect length of data produced')
    damaged('followed by something', lambda body: body + b'xy',
            "Not a gzipped file (b'xy')")
    damaged('a web page', put(b'<html>404</html>'),
            'it does not begin as an IDX file')
    damaged('cut in its header', put(header(magic)), 'it ends in its header')
    damaged('another magic number', put(header(
        other, count, *shape, items=bytes(items))),
        'it has %d dimensions, and %s' % (
            other % 256, 'images have 3: count, rows, columns' if pictures
            else 'labels have 1'))
    damaged('floats', put(header(magic + 0x500, count, *shape,
                                 items=bytes(4 * items))),
            'its items are of type 0x0d, not unsigned bytes, 0x08')
    damaged('less than it says', put(header(
        magic, count, *shape, items=bytes(items - 1))),
        'it holds %d bytes where its header says %d' % (items - 1, items))
    damaged('a bomb', put(header(magic, count, *shape,
                                 items=bytes(5 * 10 ** 7))),
            'it holds more than the %d bytes that its header says' % items)
    if pictures:
        damaged('without pixels', put(header(magic, count, 0, 32)),
                'its images are 0 x 32')
        two = sorted([(path, '32 x 32'), (path.replace(*(
            ('train', 't10k') if 'train' in path else ('t10k', 'train'))),
            '28 x 28')], reverse=True)
        case(name + ': 32 x 32', CHECK, do(change, path, put(header(
            magic, count, 32, 32, items=bytes(count * 1024)))),
            'error: the images of %s are %s, and those of %s are %s: put in the files '
            'that belong together' % (*two[0], *two[1]))
    else:
        case(name + ': a label more', CHECK, do(change, path, put(header(
            magic, count + 1, items=bytes(count + 1)))),
            'error: %s has %d labels for the %d images of %s: put in the '
            'files that belong together' % (
                path, count + 1, count, path.replace('labels-idx1', 'images-idx3')))
    case(name + ': missing', CHECK, do(remove, path),
         "error: data has no %s, and what it has is not MNIST's (%s): add "
         'the missing files of that data set, or name an empty folder to fetch MNIST'
         % (name[:-len('.gz')],
            ', '.join(other for other in mnist_files.FILES if other != name)))
    for what, make in {'a pipe': lambda path: os.mkfifo(str(path)),
                       'a folder': lambda path: path.mkdir()}.items():
        case('%s: %s' % (name, what), CHECK, do(instead(make), path),
             'error: %s is not a file: put one in its place, or name another '
             'folder with --data_dir' % path)
case('a data file that is a link to nothing', CHECK, do(
    instead(lambda path: path.symlink_to('gone')), 'data/' + mnist_files.TEST_LABELS),
    'error: cannot read data/t10k-labels-idx1-ubyte.gz (No such file or '
    'directory): fix that, or name another folder with --data_dir')
case('a data file that may not be read', CHECK, do(
    lambda path: path.chmod(0), 'data/' + mnist_files.TEST_LABELS),
    'error: cannot read data/t10k-labels-idx1-ubyte.gz (Permission denied): '
    'fix that, or name another folder with --data_dir')
case('a damaged data file, training', ON_DATA, do(
    change, 'data/' + mnist_files.TEST_IMAGES, cut(0.5)),
    "error: data/%s is damaged, or not in MNIST's format (Compressed file ended before "
    'the end-of-stream marker was reached): put a whole file in its place, or name '
    'another folder with --data_dir' % mnist_files.TEST_IMAGES)

NO_FOLDER = ('error: there is no folder %s: name the one that holds the data with '
             '--data_dir, or fetch MNIST into it: python data.py %s')
MISSING = ('train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, '
           't10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz')
case('no data folder', TRAIN + '--data_dir nowhere --mirror ' + NOWHERE, None,
     NO_FOLDER % ('nowhere', 'nowhere'))
case('no data', TRAIN + '--data_dir empty --mirror ' + NOWHERE, do(
    lambda path: path.mkdir(), 'empty'),
     'error: could not fetch MNIST (%s: Connection refused): put %s into '
     'empty, or name the folder that has them with --data_dir, or train on '
     'the bundled digits with --dataset digits' % (NOWHERE, MISSING))
case('no data folder, data.py', 'data.py nowhere ' + NOWHERE, None,
     'error: could not fetch MNIST (%s: Connection refused): put %s into '
     'nowhere, or name the folder that has them' % (NOWHERE, MISSING), status=3)
case('a file as the data folder', TRAIN + '--data_dir digit.png', None,
     'error: cannot read the folder digit.png (Not a directory): name another '
     'with --data_dir')
for flags, train in (('--dataset digits --batch_size 1258', 1257),
                     ('--data_dir data --batch_size 4819', 4818)):
    case(flags, TRAIN + '--dynamic_rnn ' + flags, None,
         'error: --batch_size %d is more than the %d images to train with: lower it'
         % (train + 1, train))
CLASSES = ('error: data/classes.txt must hold 10 different names, each on a line, for '
           'the labels 0 to 9, and it holds %d: fix it, or move it away')
for how, body, count in (('too few', 'a\nb\n', 2), ('none', '', 0),
                         ('too many', 'abcdefghijk', 11),
                         ('one empty', 'abcdefgh j', 9),
                         ('one twice', 'abcdefghia', 9)):
    case('classes.txt: ' + how, CHECK, do(
        lambda path, body: path.write_text(body), 'data/classes.txt',
        body if '\n' in body else '\n'.join(body)), CLASSES % count)
case('classes.txt: not UTF-8', CHECK, do(
    lambda path: path.write_bytes('\u72d7'.encode('gbk')), 'data/classes.txt'),
    "error: cannot read data/classes.txt ('utf-8' codec can't decode byte 0xb9 in "
    'position 0: invalid start byte): fix that, and save it as UTF-8')
case('classes.txt: a folder', CHECK, do(lambda path: path.mkdir(), 'data/classes.txt'),
     'error: cannot read data/classes.txt (Is a directory): fix that, and save it as '
     'UTF-8')
case('a data folder that may not be read', CHECK, do(
    lambda path: path.chmod(0), 'data'),
    'error: cannot read the folder data (Permission denied): name another with '
    '--data_dir')
case('no space for the data', 'data.py full {mirror}', None,
     'error: cannot write full/train-images-idx3-ubyte.gz (No space left on '
     'device): fix that, or name another folder')
case('data that may not be written', 'data.py locked {mirror}', None,
     'error: cannot write locked/train-images-idx3-ubyte.gz (Permission denied): '
     'fix that, or name another folder')

case('a run directory with something in it', ON_DATA + '--run_dir run', None,
     'error: the folder run holds a run: go on with --resume run, or name a new folder '
     'with --run_dir')
case('a run directory with something of the user', ON_DATA + '--run_dir data', None,
     'error: the folder data is not empty: name a new one with --run_dir')
case('a run directory in a file', ON_DATA + '--run_dir digit.png/run', None,
     'error: cannot make the folder digit.png/run (Not a directory): name '
     'another with --run_dir')
case('a run directory where nothing may be made', ON_DATA
     + '--run_dir locked/run', None,
     'error: cannot make the folder locked/run (Permission denied): name '
     'another with --run_dir')
case('a run directory that may not be written', ON_DATA + '--run_dir locked',
     None, 'error: cannot write locked/.lock (Permission denied): fix '
     'that, or name another folder')
case('a run directory without space', ON_DATA + '--run_dir full/run', None,
     'error: cannot write full/run/config.json (No space left on device): fix '
     'that and begin a new run')
IN_USE = ('error: %s is in use by a training that is running: wait for it, stop it, or '
          'name another folder')
USED = []


def in_use(path):
    USED.append(RunDirectory(str(path)))
    USED[-1].lock()


case('a run directory in use', ON_DATA + '--run_dir new', do(
    lambda path: (path.mkdir(), in_use(path)), 'new'),
    IN_USE % 'new')
case('--resume: in use', RESUME, do(in_use, 'run'), IN_USE % 'run')

DAMAGED_CONFIG = ('error: run/config.json is damaged (%s): put back a whole one, '
                  'or begin a new run without --resume')
NOT_OURS = DAMAGED_CONFIG % 'it does not hold what this script writes there'
case('--resume: no run', RESUME, do(remove, 'run'),
     'error: --resume run: cannot read run/config.json (No such file or '
     'directory): name the directory of a run')
case('--resume: done', RESUME + '--steps 20', None,
     'error: the run in run has done its 20 steps: name more with --steps')
case('--resume: more steps behind it', RESUME + '--steps 15', not_done(),
     'error: the run in run has done 20 steps: name more with --steps')
for flag, value, begun_with in (('hidden_size', 9, 8), ('seed', 4, 3),
                                ('dataset', 'digits', 'mnist')):
    case('--resume: other ' + flag, RESUME + '--%s %s' % (flag, value),
         not_done(), 'error: the run in run was begun with --%s %s: leave out '
         '--%s, or begin a new run without --resume' % (flag, begun_with, flag))
case('--resume: --quick', RESUME + '--quick', None,
     'train_lstm_mnist.py: error: argument --quick: not with --resume, whose run '
     'keeps its flags', status=2)
case('--resume: config.json cut', RESUME, do(change, 'run/config.json',
                                             lambda body: body[:20]),
     DAMAGED_CONFIG % 'Unterminated string starting at: line '
     '3 column 3 (char 19)')
case('--resume: config.json empty', RESUME, do(change, 'run/config.json', put(
    b'')), DAMAGED_CONFIG % 'Expecting value: line 1 column 1 (char 0)')
case('--resume: config.json no text', RESUME, do(change, 'run/config.json', put(
    b'\xff')), DAMAGED_CONFIG % "'utf-8' codec can't decode byte 0xff in position "
    '0: invalid start byte')
case('--resume: config.json a list', RESUME, do(change, 'run/config.json', put(
    b'[]')), NOT_OURS)
case('--resume: config.json of no run', RESUME, do(
    change, 'run/config.json', lambda body: body.replace(b'"data_sha256"', b'"of"')),
    NOT_OURS)
case('--resume: config.json of a newer version', RESUME, do(
    change, 'run/config.json', lambda body: body.replace(b'"lr"', b'"tomorrow"')),
    'error: run/config.json has --tomorrow, which this version does not have: go on '
    'with the version that began the run, or begin a new one without --resume')
case('--resume: config.json with a bad lr', RESUME, config(lr=(b'0.001', b'-1')),
     DAMAGED_CONFIG % "argument --lr: must be a number above 0, not '-1'")
case('--resume: config.json with no lr', RESUME, config(lr=(b'0.001', b'null')),
     DAMAGED_CONFIG % '--lr is null')
case('--resume: config.json with keep_prob 0', RESUME,
     config(keep_prob=(b'0.5', b'0')), DAMAGED_CONFIG
     % "argument --keep_prob: must be a number above 0 and at most 1, not '0'")
case('--resume: config.json with no names', RESUME,
     config(class_names=(b'[', b'null, "shift": [')), DAMAGED_CONFIG
     % 'it does not hold what this script writes there')
case('--resume: config.json of another model', RESUME,
     config(hidden_size=(b'8', b'9')),
     'error: run/model.ckpt-20 is of another model than config.json and model.py: put '
     'back the files of one run, or model.py as it was when the run began')
NO_CHECKPOINT = ('error: cannot resume, run/model.ckpt-20 is damaged (%s); '
                 'run/model.ckpt-10 is damaged (%s): begin a new run without '
                 '--resume')
for part, how, of, why in (
        ('index', 'cut', cut(0.9), 'not an sstable (bad magic number)'),
        ('index', 'empty', put(b''), 'file is too short to be an sstable'),
        ('data-00000-of-00001', 'cut', cut(0.9), 'Read less bytes than requested'),
        ('data-00000-of-00001', 'empty', put(b''),
         'Read less bytes than requested'),
        # The sums are of weights, which another processor rounds otherwise.
        ('data-00000-of-00001', 'bit flipped', flip(0.5), 'Checksum does not '
         'match: stored # vs. calculated on the restored bytes #')):
    case('--resume: every .%s %s' % (part, how), RESUME,
         both_checkpoints(part, change, of), NO_CHECKPOINT % (why, why))
case('--resume: every .index bit flipped', RESUME, both_checkpoints(
    'index', change, flip(0.5)), NO_CHECKPOINT % tuple(
        'Unable to read file (run/model.ckpt-%d.index). Perhaps the file is '
        'corrupt or was produced by a newer version of TensorFlow with format '
        'changes (failed to seek to header entry): block checksum mismatch'
        % step for step in (20, 10)))
case('--resume: every .index missing', RESUME, both_checkpoints('index', remove),
     'error: cannot resume, run has no checkpoint yet: begin it again, with --run_dir '
     'run in place of --resume')
case('--resume: every .data missing', RESUME, both_checkpoints(
    'data-00000-of-00001', remove),
    NO_CHECKPOINT % tuple('run/model.ckpt-%d.data-00000-of-00001; No such file or '
                          'directory' % step for step in (20, 10)))
OTHER_DATA = ('error: data does not hold the files that run was trained on: use '
              '--data_dir to name the folder that holds them')
relabel = do(change, 'data/' + mnist_files.TEST_LABELS,
             put(header(2049, 64, items=bytes(64))))
case('--resume: other data', RESUME, not_done(relabel), OTHER_DATA)
case('--resume: no data', RESUME + '--mirror ' + NOWHERE,
     not_done(do(remove, 'data')), NO_FOLDER % ('data', 'data'))

PREDICT = 'predict.py run --test 3 '
DAMAGED_MODEL = ('error: run/saved_model is damaged (%s): move it away, and make it '
                 'again: python train_lstm_mnist.py --resume run')
case('predict.py: no run', PREDICT, do(remove, 'run'),
     'error: there is no folder run: name the directory of a run that is done')
case('predict.py: a run that is not done', PREDICT, do(remove, 'run/saved_model'),
     'error: run has no saved_model: name the directory of a run that is done, '
     'or go on with it: python train_lstm_mnist.py --resume run')
case('predict.py: no run directory', PREDICT,
     do(instead(lambda path: path.mkdir()), 'run'),
     'error: run is not the directory of a run: name one of a run that is done')
PB, INDEX, WEIGHTS = ('saved_model.pb', 'variables/variables.index',
                      'variables/variables.data-00000-of-00001')
for name, how, function, args, why in (
        (PB, 'cut', change, [cut(0.9)], "Cannot parse file "
         "b'run/saved_model/saved_model.pb': Error parsing message with type "
         "'tensorflow.SavedModel'."),
        (PB, 'empty', change, [put(b'')],
         "MetaGraphDef associated with tags 'serve' could not be found in "
         'SavedModel. To inspect available tag-sets in the SavedModel, please use '
         'the SavedModel CLI: `saved_model_cli`'),
        (PB, 'missing', remove, [], 'SavedModel file does not exist at: '
         'run/saved_model/{saved_model.pbtxt|saved_model.pb}'),
        (INDEX, 'cut', change, [cut(0.9)], 'not an sstable (bad magic number)'),
        (INDEX, 'empty', change, [put(b'')], 'file is too short to be an sstable'),
        (INDEX, 'bit flipped', change, [flip(0.5)],
         'Unable to read file (run/saved_model/variables/variables.index). Perhaps '
         'the file is corrupt or was produced by a newer version of TensorFlow with '
         'format changes (failed to seek to header entry): block checksum mismatch'),
        (INDEX, 'missing', remove, [], 'The passed save_path is not a valid '
         'checkpoint: run/saved_model/variables/variables'),
        (WEIGHTS, 'cut', change, [cut(0.9)], 'Read less bytes than requested'),
        (WEIGHTS, 'empty', change, [put(b'')], 'Read less bytes than requested'),
        (WEIGHTS, 'bit flipped', change, [flip(0.5)], 'Checksum does not '
         'match: stored # vs. calculated on the restored bytes #'),
        (WEIGHTS, 'missing', remove, [], 'run/saved_model/' + WEIGHTS
         + '; No such file or directory')):
    case('predict.py: %s %s' % (name, how), PREDICT,
         do(function, 'run/saved_model/' + name, *args), DAMAGED_MODEL % why)
case('predict.py: config.json cut', PREDICT, do(change, 'run/config.json',
                                                cut(0.5)),
     'error: run does not tell what it was trained on: put back a whole '
     'config.json')
case('predict.py: no such test image', PREDICT + '--test 64', None,
     'error: there is no test image 64: name one from 0 to 63')
case('predict.py: a test image below 0', PREDICT + '--test=-1', None,
     'error: there is no test image -1: name one from 0 to 63')
case('predict.py: other data', PREDICT, relabel, OTHER_DATA)
case('predict.py: no data', PREDICT, do(remove, 'data'),
     'error: MNIST is not there: put %s into data, or name the folder that has '
     'them' % MISSING)
case('predict.py: damaged data', PREDICT, do(
    change, 'data/' + mnist_files.TEST_LABELS, flip(-6)),
    "error: data/%s is damaged, or not in MNIST's format (CRC check failed %s != %s): "
    'put a whole file in its place, or name another folder with --data_dir'
    % (mnist_files.TEST_LABELS, hex(crc ^ 1 << 20), hex(crc)))
case('predict.py: images', 'predict.py run digit.png %s digit.png' % ' '.join(
    IMAGES), images, *['error: %s cannot be read (%s): name an image of a digit'
                       % name_and_why for name_and_why in IMAGES.items()])
case('predict.py: rows that may not be written', PREDICT
     + '--rows locked/rows.png', None,
     'error: cannot write locked/rows.png (Permission denied): fix that, or '
     'name another folder')
case('predict.py: no space for rows', PREDICT + '--rows full/rows.png', None,
     'error: cannot write full/rows.png (No space left on device): fix that, '
     'or name another folder')
case('predict.py: cells that may not be written', PREDICT
     + '--cells locked/cells.png', None,
     'error: cannot write locked/cells.png (Permission denied): fix that, or '
     'name another folder')


def contents(folder):
    """Returns what is in a folder: {path: (mode, bytes of a file)}."""
    found = {}
    for path in folder.rglob('*'):
        mode, body = path.lstat().st_mode, None
        if stat.S_ISREG(mode) and mode & 0o400:
            body = path.read_bytes()
        found[str(path.relative_to(folder))] = mode, body
    return found


def give(name, command, folder):
    """Give the command of a case; return what `run` and `call` return."""
    if 'full' in command:
        return run(*shlex.split(command), cwd=folder, prefix=full_disk('full'))
    if 'locked' in command or 'may not be read' in name:
        return run(*without_root(), *shlex.split(command), cwd=folder)
    return call(*shlex.split(command), cwd=folder)


@pytest.mark.parametrize('name', CASES)
def test_bad_input(name, begun, tmp_path, request, monkeypatch):
    command, damage, status, lines = CASES[name]
    folder = tmp_path / 'folder'
    shutil.copytree(str(begun), str(folder))
    (folder / 'full').mkdir()
    (folder / 'locked').mkdir()
    if damage:
        damage(folder)
    if '{mirror}' in command:
        mnist_dir = request.getfixturevalue('mnist_dir')

        def answer(handler, name):
            with open(os.path.join(mnist_dir, name), 'rb') as f:
                send(handler, f.read())

        command = command.format(mirror=request.getfixturevalue('serve')(answer))
    before = contents(folder)
    (folder / 'locked').chmod(0o555)
    if status == 2:  # wrong usage is told before TensorFlow is imported
        monkeypatch.setitem(sys.modules, 'tensorflow', None)
    done = give(name, command, folder)
    (folder / 'locked').chmod(0o755)
    assert done.returncode == status
    said = re.sub(r'(stored|bytes) \d+', r'\1 #', re.sub(
        'unsure: .*\n', '', done.stderr)).splitlines()
    while USED:
        USED.pop().unlock()
    assert tuple(said[-len(lines):]) == lines
    assert len(done.error_lines) == (status != 2) * len(lines)
    assert 'test accuracy' not in done.stdout
    assert contents(folder) == before
