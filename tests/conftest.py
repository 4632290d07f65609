"""What the tests share: MNIST, made-up data in its format, mirrors that lie."""
import gzip
import http.server
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import data  # noqa: E402

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
os.environ['no_proxy'] = '127.0.0.1'
if 'MNIST_DATA_DIR' in os.environ:
    os.environ['MNIST_DATA_DIR'] = os.path.abspath(os.environ['MNIST_DATA_DIR'])

NOWHERE = 'http://127.0.0.1:9/'  # the discard port: nobody listens


def pytest_configure(config):
    # TensorFlow 1.15's own imports bring these up; numpy silences the second
    # itself, and pytest takes that back.
    for chatter in ('ignore::DeprecationWarning',
                    'ignore:numpy.ufunc size changed:RuntimeWarning'):
        config.addinivalue_line('filterwarnings', chatter)


@pytest.fixture(scope='session')
def mnist_dir():
    """The folder with MNIST's four files; skips where there is none."""
    folder = os.environ.get('MNIST_DATA_DIR')
    if not folder:
        pytest.skip('MNIST_DATA_DIR names no folder with MNIST')
    assert data.is_mnist(folder)
    return folder


def idx(items):
    """Returns uint8 items, [n, 28, 28] or [n], as a gzipped IDX file."""
    header = np.array([0x800 + items.ndim, *items.shape], '>u4').tobytes()
    return gzip.compress(header + items.astype(np.uint8).tobytes(), 1)


@pytest.fixture(scope='session')
def made_up():
    """The bodies of four files in MNIST's format: 5,256 images and 64.

    An image's class is the place of a bright band, so that it can be learnt.
    """
    def images(labels):
        pixels = np.zeros([len(labels), 28, 28])
        for image, label in zip(pixels, labels):
            image[2 * label + 4:2 * label + 7] = 200
        return idx(pixels)

    train, test = np.arange(5256) % 10, np.arange(64) % 10
    return dict(zip(data.FILES, (images(train), idx(train), images(test),
                                 idx(test))))


@pytest.fixture
def made_up_dir(tmp_path, made_up):
    """A folder with the files of `made_up`."""
    folder = tmp_path / 'made_up'
    folder.mkdir()
    for name, body in made_up.items():
        (folder / name).write_bytes(body)
    return folder


@pytest.fixture
def serve():
    """A function that starts a server on 127.0.0.1 and returns its address.

    It takes answer(handler, name), which answers a GET of a file by name.
    """
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    answer(self, self.path.lstrip('/'))
                except ConnectionError:
                    pass  # the client gave up, as the tests mean it to

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return 'http://127.0.0.1:%d/' % server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope='session')
def digits_run(tmp_path_factory):
    """A run that is done, of 500 steps on the bundled digits, with averages."""
    run_dir = tmp_path_factory.mktemp('digits') / 'run'
    done = run('train_lstm_mnist.py', '--dataset', 'digits', '--seed', 1,
               '--hidden_size', 32, '--ema_decay', 0.98, '--save_every', 100,
               '--steps', 500, '--device', 'cpu', '--run_dir', run_dir)
    assert done.returncode == 0, done.stderr
    run_dir.joinpath('stdout').write_text(done.stdout)
    run_dir.joinpath('stderr').write_text(done.stderr)
    return run_dir


def send(handler, body, length=None):
    """Answers a request with 200 and body, of the length that it claims."""
    handler.send_response(200)
    handler.send_header('Content-Length',
                        len(body) if length is None else length)
    handler.end_headers()
    handler.wfile.write(body)


def run(script, *args, cwd=ROOT, stdout=subprocess.PIPE, **env):
    """Runs one of the project's scripts.

    Returns a CompletedProcess; its error_lines are those of stderr that begin
    with `error:`.
    """
    env = dict(os.environ, **env)
    env.pop('TF_CPP_MIN_LOG_LEVEL', None)  # the script is to see to that itself
    done = subprocess.run(
        [sys.executable, os.path.join(ROOT, script), *map(str, args)],
        cwd=str(cwd), env=env, stdout=stdout,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=300)
    assert 'Traceback' not in done.stderr, done.stderr
    done.error_lines = [line for line in done.stderr.splitlines()
                        if line.startswith('error:')]
    return done
