"""The folder of a run, and files that appear whole or not at all."""
import contextlib
import itertools
import json
import os
import re
import shutil
import sys
import time
import uuid

from training.errors import UserError, reason

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None

LOCK = '.lock'
# A name that nobody else gives to a file, since what has it is deleted.
TEMPORARY_PREFIX = '.train_lstm_mnist-'
# The temporary files of `temporary_name` and of tf.train.Saver.
TEMPORARY = re.compile(re.escape(TEMPORARY_PREFIX) + r'[\da-f]{32}|'
                       r'model\.ckpt-\d+\.(index|data-\d{5}-of-\d{5})\.tempstate\d+')


class RunDirectory(object):
    """The folder of a run. One process at a time holds its lock.

    Attributes:
        path: str, or None until `create` makes a runs/<date>-<time>.
    """

    def __init__(self, path):
        self.path = path
        self._held = contextlib.ExitStack()

    def create(self):
        """Make the folder of a new run and lock it, or raise a `UserError`."""
        try:
            if self.path is None:
                self.path = _make_new()
            os.makedirs(self.path, exist_ok=True)
        except OSError as error:
            raise UserError('cannot make the folder %s (%s): name another with '
                            '--run_dir' % (self.path or 'runs', error.strerror))
        names = set(os.listdir(self.path)) - {LOCK, 'lost+found'}
        if last_step(self.path):
            raise UserError('the folder %s holds a run: go on with --resume %s, or '
                            'name a new folder with --run_dir'
                            % (self.path, self.path))
        # A run that was killed before its first checkpoint begins again.
        if names and ('config.json' not in names or 'result.json' in names):
            raise UserError('the folder %s is not empty: name a new one with '
                            '--run_dir' % self.path)
        self.lock()

    def lock(self):
        """Lock the folder and delete the temporary files of killed processes.

        If its file system has no locks, print a warning and delete nothing.

        Raises:
            UserError: another training holds the lock, or it cannot be written.
        """
        try:
            lock = self._held.enter_context(open(self.file(LOCK), 'w'))
        except OSError as error:
            raise UserError('cannot write %s (%s): fix that, or name another folder'
                            % (self.file(LOCK), reason(error)))
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise UserError('%s is in use by a training that is running: wait for it, '
                            'stop it, or name another folder' % self.path)
        except OSError as error:
            print('warning: the file system of %s has no locks (%s): do not start a '
                  'second training in this folder' % (self.path, reason(error)),
                  file=sys.stderr)
            return
        for name in filter(TEMPORARY.fullmatch, os.listdir(self.path)):
            path = self.file(name)
            (shutil.rmtree if os.path.isdir(path) else os.remove)(path)

    def unlock(self):
        """Release the lock, if it is held."""
        self._held.close()

    def file(self, name):
        """Return the path of a file in the folder."""
        return os.path.join(self.path, name)

    def kept(self):
        """Return, as a part of a sentence, the checkpoint to resume from."""
        step = last_step(self.path)
        return 'the checkpoint of step %d' % step if step else 'no checkpoint yet'

    def write(self, name, body):
        """Write a file of bytes, or of a dict as JSON, whole or not at all."""
        if isinstance(body, dict):
            body = (json.dumps(body, indent=2) + '\n').encode()
        with self.writing(name):
            write_whole(self.file(name), body)

    @contextlib.contextmanager
    def writing(self, name, *errors):
        """Turn OSError, ValueError and errors in the block into a `UserError`."""
        try:
            yield
        except (OSError, ValueError) + errors as error:
            raise UserError('cannot write %s (%s): fix that and %s' % (
                self.file(name), reason(error),
                'go on with --resume ' + self.path if last_step(self.path)
                else 'begin a new run'))


def _make_new():
    """Make a new runs/<date>-<time>; return its path."""
    now = time.strftime('runs/%Y%m%d-%H%M%S')
    for number in itertools.count(1):
        path = now if number == 1 else '%s-%d' % (now, number)
        with contextlib.suppress(FileExistsError):  # another run began in this second
            os.makedirs(path)
            return path


def temporary_name(folder):
    """Return a new path in a folder. `RunDirectory.lock` deletes old ones."""
    return os.path.join(folder, TEMPORARY_PREFIX + uuid.uuid4().hex)


def write_whole(path, body):
    """Write a file of bytes, whole or not at all; make its folder if it is missing."""
    os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
    temporary = temporary_name(os.path.dirname(path))
    try:
        with open(temporary, 'xb') as f:
            f.write(body)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def checkpoint_steps(path):
    """Return the steps of the checkpoints in a folder, the latest first."""
    names = os.listdir(path) if os.path.isdir(path) else []
    found = [re.fullmatch(r'model\.ckpt-(\d+)\.index', name) for name in names]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def last_step(path):
    """Return the step of the latest checkpoint in a folder, 0 if there is none."""
    return max(checkpoint_steps(path), default=0)


def read_json(path, name, key):
    """Return a value of a JSON file in a folder, None if it is missing or damaged."""
    try:
        with open(os.path.join(path, name)) as f:
            return json.load(f)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None
