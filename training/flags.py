"""Flags: their kinds, those that every run has, and what --resume may change."""
import argparse
import json
import os
import random
import re
import shlex
import sys

from training.errors import UserError
from training.mnist_files import DATA_DIR, MIRRORS
from training.run_directory import read_json
from training.workers import launched

# Flags that --resume may change.
RESUME_FLAGS = ('steps', 'data_dir', 'mirror', 'device', 'log_every',
                'save_every', 'horovod')
# Flags that are not in config.json, and what it holds besides the flags.
NOT_KEPT = {'resume', 'horovod', 'quick'}
KNOWN = {'data_sha256', 'num_validation', 'class_names'}
# Before config.json had num_validation, 5,000 images were set aside, also of 6,000.
OLD_NUM_VALIDATION = 5000


# A kind of flag takes the text and returns the value.

def number(kind, what, is_good):
    """Return a kind of flag: an int or float; `what` describes it in the error."""
    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_good(value):
            raise argparse.ArgumentTypeError('must be %s, not %r' % (what, text))
        return value
    return parse


def whole(low, high=None):
    """Return a kind of flag: a whole number from low to high, or low or more."""
    if high is None:
        return number(int, 'a whole number, %d or more' % low, lambda n: n >= low)
    return number(int, 'a whole number from %d to %d' % (low, high),
                  lambda n: low <= n <= high)


def folder(text):
    """The name of a folder. A ~ is the home folder, also if the shell left it."""
    if not text:
        raise argparse.ArgumentTypeError('must be the name of a folder')
    return os.path.expanduser(text)


def run_folder(text):
    """The name of a run directory."""
    if not text.isprintable() or set(text) & set('*?[]\\'):
        raise argparse.ArgumentTypeError(
            'must not contain * ? [ ] \\, which TensorFlow takes for a pattern, or '
            'characters that cannot be printed, not %a' % text)
    if os.fsencode(text) != text.encode():
        raise argparse.ArgumentTypeError(
            'must be in UTF-8, which TensorFlow writes, and not in %s: set '
            'LC_ALL=C.UTF-8, or name an ASCII folder' % sys.getfilesystemencoding())
    return folder(text)


def mirror_url(text):
    """The address of a mirror."""
    host = r'([\w.-]+|\[[\da-f:]+\])(:\d+)?'
    if not re.fullmatch(r'https?://([^\s/@]+@)?%s(/\S*)?' % host, text, re.I):
        raise argparse.ArgumentTypeError(
            'must be an address that begins with http:// or https://, not %r'
            % text)
    return text


def add_run_flags(parser):
    """Add the flags for the data, the device and the folder of a run."""
    add = parser.add_argument
    add('--dataset', default='mnist', choices=('mnist', 'digits'),
        help='mnist, or the 1,797 small digits that come with scikit-learn '
        '(default: %(default)s)')
    add('--data_dir', default=DATA_DIR, type=folder,
        help="the folder with MNIST's four files; what is missing is fetched "
        '(default: %(default)s)')
    add('--mirror', type=mirror_url,
        help='where to fetch from (default: %s)' % ', then '.join(MIRRORS))
    add('--device', default='auto', choices=('auto', 'gpu', 'cpu'),
        help='where to train; auto takes a GPU if there is one (default: %(default)s)')
    add('--seed', type=whole(0, 2 ** 31 - 2),
        help='makes a run on the same CPU repeatable (default: a new one is drawn)')
    add('--log_every', default=50, type=whole(1),
        help='steps between two values of the loss (default: %(default)s)')
    add('--save_every', default=200, type=whole(1),
        help='steps between two checkpoints; the last three are kept '
        '(default: %(default)s)')
    add('--run_dir', type=run_folder,
        help='a new folder for the run (default: runs/<date>-<time>)')
    add('--horovod', action='store_true',
        help='share every batch with the other workers that horovodrun began '
        '(default: this is the only one)')
    add('--resume', metavar='RUN_DIR', type=run_folder,
        help='goes on with the run in this folder, with its flags; of those, %s and '
        '--%s may be changed' % (', '.join('--' + name for name in RESUME_FLAGS[:-1]),
                                 RESUME_FLAGS[-1]))


def parse(parser, argv, quick):
    """Return the flags; exit with 2 on wrong ones.

    Without --seed, one is drawn. With --resume, the flags are those of the run's
    config.json, changed as argv says. The flags also have `data_sha256`,
    `num_validation` and `class_names`, those of the run that is resumed, else None.

    Args:
        parser: `argparse.ArgumentParser` with all flags.
        argv: list of str, or None for the command line.
        quick: dict, the defaults that --quick sets.

    Raises:
        UserError: there is no such run, or it cannot go on with these flags.
    """
    parser.set_defaults(**dict.fromkeys(KNOWN))
    flags = parser.parse_args(argv)
    if flags.resume:
        flags = _resume(parser, flags, argv)
    elif flags.quick:
        parser.set_defaults(**quick)
        flags = parser.parse_args(argv)
    if launched() > 1 and not flags.horovod:
        parser.error('%d workers were begun: add --horovod, or each of them trains a '
                     'network of its own' % launched())
    if flags.dataset == 'mnist' and flags.data_dir != DATA_DIR and not (
            os.path.exists(flags.data_dir)):
        raise UserError('there is no folder %s: name the one that holds the data with '
                        '--data_dir, or fetch MNIST into it: python data.py %s'
                        % (flags.data_dir, shlex.quote(flags.data_dir)))
    if flags.seed is None:
        flags.seed = random.SystemRandom().randrange(2 ** 31 - 1)
    return flags


def _resume(parser, flags, argv):
    """Return the flags of the run to go on with, changed as argv says."""
    run_dir = flags.resume
    if flags.run_dir:
        parser.error('argument --run_dir: not with --resume, which names the folder '
                     'itself')
    if flags.quick:
        parser.error('argument --quick: not with --resume, whose run keeps its flags')
    config = _read_config(parser, run_dir)
    saved = _set_defaults(parser, run_dir, config)
    flags = parser.parse_args(argv)
    if (read_json(run_dir, 'result.json', 'steps') == flags.steps
            and os.path.isdir(os.path.join(run_dir, 'saved_model'))):
        raise UserError('the run in %s has done its %d steps: name more with --steps'
                        % (run_dir, flags.steps))
    for name in sorted(set(config) - {*RESUME_FLAGS, *KNOWN, 'run_dir'}):
        value = getattr(saved, name)
        if getattr(flags, name) != value:
            raise UserError('the run in %s was begun with --%s %s: leave out --%s, '
                            'or begin a new run without --resume'
                            % (run_dir, name, value, name))
    for name in KNOWN:
        setattr(flags, name, config[name])
    return flags


def _read_config(parser, run_dir):
    """Return what config.json of a run holds, a dict."""
    path = os.path.join(run_dir, 'config.json')
    try:
        with open(path) as f:
            config = json.load(f)
    except OSError as error:
        raise UserError('--resume %s: cannot read %s (%s): name the directory of a '
                        'run' % (run_dir, path, error.strerror))
    except ValueError as error:
        raise _damaged(run_dir, error)
    if not (isinstance(config, dict) and 'data_sha256' in config
            and isinstance(config.setdefault('num_validation', OLD_NUM_VALIDATION), int)
            and isinstance(config.setdefault('class_names', []), list)):
        raise _damaged(run_dir, 'it does not hold what this script writes there')
    known = {*vars(parser.parse_args([]))} - NOT_KEPT
    # A flag of another version that was off, such as "ema_decay": 0, does not matter.
    unknown = [name for name in sorted(set(config) - known) if config.pop(name)]
    if unknown:
        raise UserError('%s has --%s, which this version does not have: go on with the '
                        'version that began the run, or begin a new one without '
                        '--resume' % (path, ', --'.join(unknown)))
    return config


def _set_defaults(parser, run_dir, config):
    """Make the flags in a config.json the defaults, and return them, checked."""
    def damaged(message):
        raise _damaged(run_dir, message)

    defaults, argv = vars(parser.parse_args([])), []
    for name in sorted(set(config) - {*KNOWN, 'run_dir'}):
        value = config[name]
        if value is None or value is False:
            if value is not defaults[name]:
                damaged('--%s is %s' % (name, json.dumps(value)))
        else:
            argv.append('--' + name if value is True else '--%s=%s' % (name, value))
    parser.error = damaged
    saved = parser.parse_args(argv)
    del parser.error
    parser.set_defaults(**vars(saved))
    return saved


def _damaged(run_dir, why):
    return UserError('%s is damaged (%s): put back a whole one, or begin a new run '
                     'without --resume' % (os.path.join(run_dir, 'config.json'), why))


def config_of(flags, **known):
    """Return what config.json holds, a dict: the flags, and the values in known."""
    # Absolute, since a run may be resumed from another folder.
    known['data_dir'] = os.path.abspath(flags.data_dir)
    return {name: value for name, value in dict(vars(flags), **known).items()
            if name not in NOT_KEPT}
