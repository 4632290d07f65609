"""stdout and stderr, of which a reader may go away while a script runs."""
import contextlib
import os
import sys


class Output(object):
    """A text stream that lets go what cannot be written any more.

    Its pipe may be closed, its disk full, its terminal gone. That must not end
    what the script does.

    Attributes:
        error: the OSError of the first write that failed; None before.
    """

    def __init__(self, stream):
        """
        Args:
            stream: a text stream, whose other methods this has too.
        """
        self._stream = stream
        self.error = None
        # Python 3.7 would hold back what goes to a file or a pipe. A name in
        # Chinese has no letters in ASCII or Latin-1: it is then told as \u6570.
        stream.reconfigure(line_buffering=True, errors=(
            'backslashreplace' if stream.errors == 'strict' else stream.errors))

    def write(self, text):
        """Writes it, or lets it go; returns its length."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._lose(error)
        return len(text)

    def flush(self):
        """Writes what was held back, or lets it go."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error):
        self.error = self.error or error
        # What the stream still holds would fail again as Python exits.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name):
        return getattr(self._stream, name)


@contextlib.contextmanager
def guarded():
    """Makes of stdout and stderr an `Output`; gives stdout's."""
    with contextlib.ExitStack() as streams:
        _open_closed(streams)
        stdout = Output(sys.stdout)
        streams.enter_context(contextlib.redirect_stdout(stdout))
        streams.enter_context(contextlib.redirect_stderr(Output(sys.stderr)))
        yield stdout


def _open_closed(streams):
    """Opens what was closed before the script began, as `>&-` does.

    Else the next file that is opened would be stdout's or stderr's to others.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, streams.enter_context(open(os.devnull, 'w')))
