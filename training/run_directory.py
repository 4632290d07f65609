"""The folder of a run: locked by one training, and written file by file."""
import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import time

from training.errors import UserError
from training.files import write_whole


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
            UserError: a running training has it.
        """
        self.path = path
        self._lock = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise UserError('%s is in use by a training that is running: wait '
                            'for it, or stop it' % path)

    def unlock(self):
        """Leaves the folder to other trainings."""
        os.close(self._lock)

    def file(self, name):
        """Returns the path of a file in the folder."""
        return os.path.join(self.path, name)

    def advice(self):
        """Returns what to do when something in the folder was not written."""
        return ('mend that and go on with --resume ' + self.path
                if checkpoint_steps(self.path)
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
        folder = self.file('saving')
        with self.writing(name, *errors):
            if os.path.exists(folder):  # left by a process that died
                shutil.rmtree(folder)
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
            directory = RunDirectory(path)
            if os.listdir(path):
                directory.unlock()
                raise UserError('the folder %s is not empty: name a new one '
                                'with --run_dir' % path)
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
