"""Flags: their kinds, those of a run, and what --resume may change."""
import argparse
import json
import os
import urllib.parse

from training import datasets
from training.errors import UserError
from training.mnist_files import MIRRORS
from training.run_directory import read_json
from training.workers import launched

# What a run that goes on may be given anew; its other flags made it what it is.
RESUME_FLAGS = ('steps', 'data_dir', 'mirror', 'device', 'log_every',
                'save_every', 'horovod')

# Flags that are not in config.json, and what is in it besides flags.
NOT_KEPT, KEPT_BESIDES = {'resume', 'horovod', 'quick'}, {'data_sha256'}


# Kinds of flags: each takes the text and returns the value, or raises an
# `argparse.ArgumentTypeError`.

def number(kind, what, is_good):
    """Returns a kind of flag: a number that is_good.

    Args:
        kind: int or float.
        what: str, what it must be.
        is_good: a function from the number to bool.
    """
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
    """Returns a kind of flag: a whole number from low to high, or above."""
    if high is None:
        return number(int, 'a whole number, %d or more' % low,
                      lambda n: n >= low)
    return number(int, 'a whole number from %d to %d' % (low, high),
                  lambda n: low <= n <= high)


def folder(text):
    """The name of a folder."""
    if not text:
        raise argparse.ArgumentTypeError('must be the name of a folder')
    return text


def run_folder(text):
    """The name of a run directory."""
    if not text.isprintable() or set(text) & set('*?[]\\'):
        raise argparse.ArgumentTypeError(
            'must be without * ? [ ] \\, which TensorFlow takes for a pattern, '
            'and without what cannot be printed, not %a' % text)
    return folder(text)


def mirror_url(text):
    """The address of a mirror."""
    try:
        parts = urllib.parse.urlsplit(text)
        good = parts.scheme in ('http', 'https') and parts.hostname
        _ = parts.port  # raises, too
    except ValueError:
        good = False
    if not good or text.split() != [text]:
        raise argparse.ArgumentTypeError(
            'must be an address that begins with http:// or https://, not %r'
            % text)
    return text


def picture(*endings):
    """Returns a kind of flag: the name of a file with one of the endings."""
    def parse(text):
        if not text.lower().endswith(endings):
            raise argparse.ArgumentTypeError(
                'must end in %s, not %r' % (' or '.join(endings), text))
        return text
    return parse


class _WrongUsage(Exception):
    """What `argparse` would say of a flag before it exits."""


class Parser(argparse.ArgumentParser):
    """The flags of a training: a script's own, and those of every run."""

    def __init__(self, description):
        super(Parser, self).__init__(
            description=description, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter)

    def flag(self, name, default, help, **kwargs):
        """Adds a flag, as `add_argument`, whose help tells its default."""
        self.add_argument(name, default=default, **kwargs,
                          help='%s (default: %s)' % (help, default))

    def add_quick(self, **defaults):
        """Adds --quick, with which other flags have these defaults."""
        self._quick = defaults
        self.add_argument(
            '--quick', action='store_true',
            help="the tutorial's accuracy in less time: has %s as defaults"
            % ' '.join('--%s %s' % each for each in defaults.items()))

    def add_run_flags(self):
        """Adds what every run can be told: its data, device and folder."""
        self.flag('--dataset', 'mnist', 'mnist, or the 1,797 small digits that '
                  'come with scikit-learn', choices=datasets.DATASETS)
        self.flag('--data_dir', 'MNIST_data', "the folder with MNIST's four "
                  'files; what is missing is fetched', type=folder)
        self.add_argument('--mirror', type=mirror_url,
                          help='where to fetch from (default: %s)'
                          % ', then '.join(MIRRORS))
        self.flag('--device', 'auto', 'where to train; auto takes a GPU if '
                  'there is one', choices=('auto', 'gpu', 'cpu'))
        self.add_argument('--seed', type=whole(0, 2 ** 31 - 2),
                          help='makes a run on the same CPU repeatable '
                          '(default: another draw every time)')
        self.flag('--log_every', 50, 'steps between two notes of loss and '
                  'accuracy', type=whole(1))
        self.flag('--save_every', 200, 'steps between two checkpoints, of which '
                  'the last three are kept', type=whole(1))
        self.add_argument('--run_dir', type=run_folder,
                          help='a new folder for the run (default: '
                          'runs/<date>-<time>)')
        self.add_argument('--horovod', action='store_true',
                          help='share every batch with the other workers that '
                          'horovodrun began (default: this is the only one)')
        self.add_argument(
            '--resume', metavar='RUN_DIR', type=run_folder,
            help='goes on with the run in this folder, with its flags; of '
            'those, %s and --%s may be given anew' % (
                ', '.join('--' + name for name in RESUME_FLAGS[:-1]),
                RESUME_FLAGS[-1]))

    def error(self, message):
        raise _WrongUsage(message)

    def parse(self, argv):
        """Returns the flags; exits with 2 on bad ones.

        With --resume they are those of the run's config.json, and what argv
        gives anew, and have data_sha256, too.

        Args:
            argv: a list of str.

        Returns:
            An `argparse.Namespace`.

        Raises:
            UserError: there is no such run, or it can't go on like that.
        """
        try:
            flags = self.parse_args(argv)
            if flags.quick:
                self.set_defaults(**self._quick)
                flags = self.parse_args(argv)
            if flags.resume:
                flags = self._resume(flags, argv)
            self._check(flags)
        except _WrongUsage as wrong:
            super(Parser, self).error(str(wrong))
        return flags

    def _check(self, flags):
        """Looks at what no kind of flag can see by itself."""
        if launched() > 1 and not flags.horovod:
            self.error('%d workers were begun: add --horovod, or each of them trains '
                       'a network of its own' % launched())
        num_train = datasets.num_train(flags.dataset, flags.data_dir)
        if flags.batch_size > num_train:
            self.error('argument --batch_size: must be from 1 to %d, the size '
                       'of the training set, not %d'
                       % (num_train, flags.batch_size))

    def _resume(self, flags, argv):
        """Returns the flags of the run that is to go on, with argv's."""
        if flags.run_dir:
            self.error('argument --run_dir: not with --resume, which names the '
                       'folder itself')
        if flags.quick:
            self.error('argument --quick: not with --resume, whose run keeps its '
                       'flags')
        run_dir = flags.resume
        begun_with, data_sha256 = self._read_config(run_dir)
        begun = vars(self._parse_config(run_dir, begun_with))
        flags = self.parse_args(begun_with + argv)
        if (read_json(run_dir, 'result.json', 'steps') == flags.steps
                and os.path.isdir(os.path.join(run_dir, 'saved_model'))):
            raise UserError('the run in %s has done its %d steps: name more '
                            'with --steps' % (run_dir, flags.steps))
        for name, value in begun.items():
            if (name not in RESUME_FLAGS + ('run_dir', 'resume')
                    and getattr(flags, name) != value):
                raise UserError(
                    'the run in %s was begun with --%s %s: leave out --%s, or '
                    'begin a new run without --resume'
                    % (run_dir, name, value, name))
        flags.data_sha256 = data_sha256
        return flags

    def _read_config(self, run_dir):
        """Returns the flags in a config.json, as an argv, and data_sha256.

        A flag that an older version did not have is left at its default.
        """
        path = os.path.join(run_dir, 'config.json')
        try:
            with open(path) as f:
                config = json.load(f)
        except OSError as error:
            raise UserError('--resume %s: cannot read %s (%s): name the '
                            'directory of a run'
                            % (run_dir, path, error.strerror))
        except ValueError as error:
            raise _damaged(path, error)
        defaults = vars(self.parse_args([]))
        if not isinstance(config, dict) or not KEPT_BESIDES <= set(config):
            raise _damaged(path, 'it does not hold what this script writes '
                           'there')
        unknown = set(config) - (set(defaults) - NOT_KEPT | KEPT_BESIDES)
        if unknown:
            raise UserError(
                '%s has %s, which this version does not know: go on with the '
                'newer version that began it' % (path, ', '.join(sorted(unknown))))
        begun_with = []
        for name, value in config.items():
            if name == 'run_dir' or name in KEPT_BESIDES:
                continue
            if value is None or value is False:
                if value is not defaults[name]:
                    raise _damaged(path, '--%s is %s' % (name,
                                                         json.dumps(value)))
            else:
                begun_with.append('--%s%s' % (
                    name, '' if value is True else '=%s' % value))
        return begun_with, config['data_sha256']

    def _parse_config(self, run_dir, begun_with):
        try:
            return self.parse_args(begun_with)
        except _WrongUsage as wrong:
            raise _damaged(os.path.join(run_dir, 'config.json'), wrong)


def config(flags, **known):
    """Returns what config.json holds: the flags, and what is known by now.

    Args:
        flags: as `Parser.parse` gives them.
        known: values in their place, and those of `KEPT_BESIDES`.
    """
    # Else it would be looked for, and fetched, where the run is resumed from.
    known['data_dir'] = os.path.abspath(flags.data_dir)
    return {name: value for name, value in dict(vars(flags), **known).items()
            if name not in NOT_KEPT}


def _damaged(path, why):
    return UserError('%s is damaged (%s): put back a whole one, or begin a new '
                     'run without --resume' % (path, why))
