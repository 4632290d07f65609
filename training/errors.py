"""Errors that the user can fix, exit statuses, missing packages."""
import contextlib
import functools
import importlib.util
import os
import re
import sys

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class UserError(Exception):
    """A problem that the user can fix; the text is one line that says how."""


class Stopped(Exception):
    """The user stopped a training, and it was saved."""

    def __init__(self, status, text):
        super(Stopped, self).__init__(text)
        self.status = status  # the exit status


def reports_errors(main):
    """Decorate a main so that it prints errors in a line and returns the exit status.

    The status is 1 after an error, 130 after Ctrl-C, else what main returns, or 0.
    """
    @functools.wraps(main)
    def reporting(argv=None):
        stdout, stderr = Output(sys.stdout), Output(sys.stderr)
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            status = _status(main, argv)
            stdout.flush()
            if stdout.error and not status:
                status = 1
                print('error: cannot write stdout (%s), so the rest of it is lost: '
                      'fix that before the next run' % stdout.error.strerror,
                      file=sys.stderr)
        return status
    return reporting


def _status(main, argv):
    try:
        if sys.version_info < (3, 7):  # a newer one fails to import TensorFlow
            raise UserError('Python 3.7 is needed, and this is %d.%d: use make train'
                            % sys.version_info[:2])
        return main(argv) or 0
    except UserError as error:
        print('error: %s' % error, file=sys.stderr)
        return 1
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    except OSError as error:
        print('error: cannot read or write %s (%s): fix that and run again'
              % (error.filename or 'a file', reason(error)),
              file=sys.stderr)
        return 1


class Output(object):
    """A text stream that drops output it cannot write.

    So a training goes on when the reader of its pipe is gone or its disk is full.
    """

    def __init__(self, stream):
        self._stream = stream = stream or open(os.devnull, 'w')  # None: it is closed
        self.error = None  # the OSError of the first write that failed
        # Python 3.7 holds back what goes to a file or a pipe. A letter that the
        # encoding lacks is printed as \u6570.
        if hasattr(stream, 'reconfigure'):  # in a notebook it has not
            stream.reconfigure(line_buffering=True, errors=(
                'backslashreplace' if stream.errors == 'strict' else stream.errors))

    def write(self, text):
        """Write text or drop it; return its length."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self):
        """Flush the stream, or drop what it holds."""
        self._try(self._stream.flush)

    def _try(self, function, *args):
        try:
            function(*args)
        except OSError as error:
            self.error = self.error or error
            # What the stream still holds would fail again when Python exits.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name):
        return getattr(self._stream, name)


def reason(error):
    """Return in one line why something failed: an OSError, or TensorFlow's error."""
    text = getattr(error, 'strerror', None) or str(error)
    # If several operations failed, the first line is "2 root error(s) found.".
    several = re.search(r'^ *\(0\) [\w ]+: (.*)', text, re.M)
    if several:
        return several[1]
    lines = text.split('Original error:\n\n')[-1].splitlines()
    return lines[0] if lines else type(error).__name__


def require(*names):
    """Raise a `UserError` if a package is missing, without importing it."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise not_installed(name)


def not_installed(name):
    """Return the `UserError` for a package that is missing."""
    return UserError('%s is missing: pip install %s' % (name, pinned(name)))


def pinned(name):
    """Return the requirement of a package, such as tqdm==4.67.1.

    It stands in requirements.txt or in requirements/*.in.
    """
    for path in ('requirements.txt', *(
            os.path.join('requirements', name) for name in ('tests.in', 'horovod.in'))):
        with contextlib.suppress(OSError), open(os.path.join(PROJECT, path)) as f:
            for line in f:
                if line.startswith(name + '=='):
                    return line.split()[0]
    return name  # the requirements were not copied along with the scripts
