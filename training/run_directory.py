"""The folder of a run: locked by one training, and written file by file."""
import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import time

from training.errors import UserError
from training.files import write_whole

LOCK = '.lock'


class RunDirectory(object):
    """A run's folder, which is this process's until `unlock` or its end.

    Attributes:
        path: str.
    """

    def __init__(self, path):
        """Locks a folder.

        Args:
            path: str, a folder that is there.

        Raises:
            UserError: a running training has it, or it can't be locked.
        """
        import filelock  # here, so that --help and its absence can be told
        self.path = path
        # A file, as network file systems lock no folder.
        self._lock = filelock.FileLock(self.file(LOCK))
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(
                '%s is in use by a training that is running, or its file system has '
                'no locks: wait for it, stop it, or name another folder' % path)
        except (OSError, NotImplementedError) as error:
            raise UserError('cannot write %s (%s): mend that, or name another folder'
                            % (self.file(LOCK),
                               getattr(error, 'strerror', None) or error))

    def unlock(self):
        """Leaves the folder to other trainings."""
        self._lock.release()

    def file(self, name):
        """Returns the path of a file in the folder."""
        return os.path.join(self.path, name)

    def advice(self):
        """Returns what to do when something in the folder was not written."""
        try:
            steps = checkpoint_steps(self.path)
        except OSError:  # the folder itself is gone
            steps = []
        return ('mend that and go on with --resume ' + self.path if steps
                else 'mend that and begin a new run')

    def write(self, name, body, advice=None):
        """Writes a file of bytes, whole or not at all.

        Raises:
            UserError: the system says no; it ends with the advice.
        """
        write_whole(self.file(name), body, advice or self.advice())

    @contextlib.contextmanager
    def writing(self, name, *errors):
        """Makes of a write in the block that fails a `UserError`.

        Args:
            name: str, the file that is written.
            errors: exceptions that stand for such a failure, besides OSError
                and ValueError.
        """
        try:
            yield
        except (OSError, ValueError) + errors as error:
            raise UserError('cannot write %s (%s): %s' % (
                self.file(name), str(error).splitlines()[0], self.advice()))

    @contextlib.contextmanager
    def staging(self, name, *errors):
        """Gives a folder for files that are not whole yet, and removes it.

        Args:
            name: str, what is written.
            errors: as for `writing`.

        Raises:
            UserError: the system says no.
        """
        # Named so that where a file system locks for one machine only, the
        # folder of another machine's process is left alone.
        here = 'saving-%s-' % socket.gethostname()
        folder = self.file('%s%d' % (here, os.getpid()))
        with self.writing(name, *errors):
            for left in os.listdir(self.path):  # by one that died
                if re.fullmatch(re.escape(here) + r'\d+', left):
                    shutil.rmtree(self.file(left))
            os.mkdir(folder)
            try:
                yield folder
            finally:
                shutil.rmtree(folder)


def create(path=None):
    """Makes and locks the folder for a new run.

    Args:
        path: str, which must not exist or be empty; None for a new
            runs/<date>-<time>.

    Returns:
        A `RunDirectory`.

    Raises:
        UserError: it is in use, or can't be made.
    """
    try:
        if path is not None:
            os.makedirs(path, exist_ok=True)
            _check_empty(path)
            directory = RunDirectory(path)
            _check_empty(path)
            return directory
        now = time.strftime('runs/%Y%m%d-%H%M%S')
        for again in itertools.count(1):
            try:
                path = now if again == 1 else '%s-%d' % (now, again)
                os.makedirs(path)
                return RunDirectory(path)
            except FileExistsError:  # another run began this second
                continue
    except OSError as error:
        raise UserError('cannot make the folder %s (%s): name another with '
                        '--run_dir' % (path, error.strerror))


def _check_empty(path):
    if set(os.listdir(path)) - {LOCK}:
        raise UserError('the folder %s is not empty: name a new one with --run_dir'
                        % path)


def checkpoint_steps(path):
    """Returns the steps of the checkpoints in a folder, the latest first."""
    found = [re.fullmatch(r'model\.ckpt-(\d+)\.index', name)
             for name in os.listdir(path)]
    return sorted((int(match[1]) for match in found if match), reverse=True)


def read_json(path, name, key):
    """Reads a value of config.json or result.json in a run's folder.

    Returns:
        It, or None where there is no such file or it is not ours.
    """
    try:
        with open(os.path.join(path, name)) as f:
            return json.load(f)[key]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def to_json(value):
    """Returns a value as the bytes of a JSON file."""
    return (json.dumps(value, indent=2) + '\n').encode()
