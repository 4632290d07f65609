"""What a user can repair, and how a script says it."""
import functools
import sys

from training import output


class UserError(Exception):
    """A problem that the user can repair; the text is one line that says how."""


class Stopped(Exception):
    """The user stopped a training, and it was saved; the text says so.

    Attributes:
        status: int, the exit status.
    """

    def __init__(self, status, text):
        super(Stopped, self).__init__(text)
        self.status = status


def reports_errors(main):
    """Makes of a script's main one that tells in a line what went wrong.

    The line of a `UserError` begins with `error:`. The exit status is then 1,
    after Ctrl-C 130, and else what main returns, or 0.
    """
    @functools.wraps(main)
    def reporting(argv=None):
        with output.guarded() as stdout:
            status = _status(main, argv)
            stdout.flush()
            if stdout.error and not status:
                print('error: cannot write stdout (%s), and what came after is lost: '
                      'mend that before the next run' % stdout.error.strerror,
                      file=sys.stderr)
                return 1
        return status
    return reporting


def _status(main, argv):
    """Returns the exit status, once what went wrong was told."""
    try:
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
        print('error: cannot read or write %s (%s): mend that and run again'
              % (error.filename or 'a file', error.strerror or error),
              file=sys.stderr)
        return 1
