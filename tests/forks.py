"""Start the project's scripts in less time.

Importing TensorFlow takes longer than a short training. So a server imports it once,
and forks a process for each script. The process has arguments, an environment, streams,
signals and an exit status of its own.
"""
import array
import ctypes
import functools
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


class Popen(subprocess.Popen):
    """A `subprocess.Popen` of a Python script.

    Args:
        args: list of str, the path of the script and its arguments.
        prefix: what `server` takes.
        kwargs: cwd, env, the streams, and how they are read.
    """

    def __init__(self, args, prefix=(), **kwargs):
        self._server = server(prefix)
        super().__init__(args, **kwargs)

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd,
                       env, startupinfo, creationflags, shell, p2cread, p2cwrite,
                       c2pread, c2pwrite, errread, errwrite, *others):
        streams = {number: file for number, file in enumerate(
            [p2cread, c2pwrite, errwrite]) if file != -1}
        ignored = [number for number in signal.Signals
                   if signal.getsignal(number) == signal.SIG_IGN]
        request = [args, cwd or os.getcwd(), dict(env or os.environ), [*streams],
                   ignored]
        self._server.sendmsg([json.dumps(request).encode()], [(
            socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', streams.values()))])
        self.pid = int(self._server.recv(100))
        self._child_created = True
        for its, ours in ((p2cread, p2cwrite), (c2pwrite, c2pread),
                          (errwrite, errread)):
            if ours != -1:
                os.close(its)


@functools.lru_cache(None)
def server(prefix):
    """Start a server; return a socket to it.

    prefix: tuple of str, the start of the command, such as `env NAME=VALUE`.
    """
    # Then a process whose parent ends becomes our child, and we can wait for it.
    ctypes.CDLL(None).prctl(SUBREAPER, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen(
            [*prefix, sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL,
            # One thread: a process that has several should not be forked.
            env=dict(os.environ, OPENBLAS_NUM_THREADS='1'))
    return ours


def serve(connection):
    """Fork a process for each request. In that process, return its script."""
    while True:
        request, rights, _, _ = connection.recvmsg(2 ** 20, socket.CMSG_SPACE(12))
        if not request:
            sys.exit()
        files = array.array('i')
        for _, _, body in rights:
            files.frombytes(body)
        reads, writes = os.pipe()
        parent = os.fork()
        if not parent:
            pid = os.fork()
            if not pid:
                break
            os.write(writes, b'%d' % pid)
            os._exit(0)
        os.waitpid(parent, 0)
        connection.send(os.read(reads, 100))
        for file in (reads, writes, *files):
            os.close(file)
    args, cwd, environment, streams, ignored = json.loads(request.decode())
    for file, number in zip(files, streams):
        os.dup2(file, number)
    for file in (reads, writes, *files):
        os.close(file)
    connection.close()
    sys.stdout = open(1, 'w', closefd=False)
    sys.stderr = open(2, 'w', 1, errors='backslashreplace', closefd=False)
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:], sys.path[0] = args, os.path.dirname(args[0])
    return args[0]


if __name__ == '__main__':
    import matplotlib.font_manager  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import tensorflow.contrib.learn.python.learn.datasets.mnist  # noqa: F401
    gc.freeze()  # its children do not copy what they do not change
    runpy.run_path(serve(socket.socket(fileno=int(sys.argv[1]))), run_name='__main__')
