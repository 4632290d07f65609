"""Files that are written whole or not at all, and their checksums."""
import contextlib
import glob
import hashlib
import os
import socket
import uuid

from training.errors import UserError

# In a saved_model; that folder is for what TensorFlow does not read.
SHA256SUMS = os.path.join('assets.extra', 'SHA256SUMS')


def write_whole(path, body, advice='mend that, or name another folder'):
    """Writes a file so that it appears whole or, after a failure, not at all.

    Args:
        path: str; its folder is made if it is not there.
        body: bytes.
        advice: str, what to do after a failure.

    Raises:
        UserError: the system says no.
    """
    here = '%s.%s-' % (path, socket.gethostname())
    temporary = '%s%d-%s.part' % (here, os.getpid(), uuid.uuid4().hex)
    try:
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        _remove_left(here)
        try:
            with open(temporary, 'xb') as f:
                f.write(body)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.remove(temporary)
            raise
    except OSError as error:
        raise UserError('cannot write %s (%s): %s'
                        % (path, error.strerror, advice))


def _remove_left(here):
    """Removes what processes of this machine that were killed have left."""
    for left in glob.glob(glob.escape(here) + '*.part'):
        pid, _, _ = left[len(here):].partition('-')
        if pid.isdigit() and not _is_running(int(pid)):
            with contextlib.suppress(OSError):  # another removes it, or may
                os.remove(left)


def _is_running(pid):
    if os.name != 'posix':
        return True  # there, the same call would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def sync(path):
    """Has the system write a file or a folder out, against a power cut."""
    if os.name != 'posix':
        return  # Windows opens no folder, and writes out no file that is only read
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path):
    """Returns the sha256 of a file, as 64 hexadecimal digits."""
    with open(path, 'rb') as f:
        return hashlib.sha256(f.read()).hexdigest()


def sha256sums(folder):
    """Returns, as `sha256sum` prints it, the sha256 of all files in a folder.

    But for those in assets.extra, where `SHA256SUMS` is.
    """
    names = [os.path.relpath(os.path.join(place, name), folder)
             for place, _, files in os.walk(folder) for name in files]
    return ''.join('%s  %s\n' % (sha256_of(os.path.join(folder, name)), name)
                   for name in sorted(names)
                   if os.path.dirname(name) != os.path.dirname(SHA256SUMS))
