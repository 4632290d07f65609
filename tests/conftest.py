"""Shared by the tests: running scripts, data, finished runs, bad mirrors."""
import contextlib
import fcntl
import gzip
import http.server
import importlib
import io
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import forks  # noqa: E402

import data  # noqa: E402
from training import gpu, mnist_files  # noqa: E402
from training.environment import import_tensorflow  # noqa: E402

# It is ignored if the tests run in the background of a script.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
os.environ['no_proxy'] = '127.0.0.1'
os.environ.pop('MAKELEVEL', None)  # make runs the tests, and not the scripts in them
# GPUs are hidden from all tests but those of test_gpu.py, which use this, and those
# that use `null_gpu`.
GPUS = {'CUDA_VISIBLE_DEVICES': os.environ.get('CUDA_VISIBLE_DEVICES', '0')}
os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
MNIST = os.environ.get('MNIST_DATA_DIR')  # empty if make was given none
MNIST = MNIST and os.path.abspath(MNIST)

SMALL = ('--hidden_size', 8, '--batch_size', 16, '--device', 'cpu')
# A step takes some milliseconds, and an epoch 13 steps.
QUICK = ('--dataset', 'digits', '--hidden_size', '8', '--layer_num', '1',
         '--dynamic_rnn', '--batch_size', '100', '--keep_prob', '1', '--seed',
         '3', '--device', 'cpu')

LIMIT = 900  # seconds after which a process hangs
NOWHERE = 'http://127.0.0.1:9/'  # the discard port: nobody listens


def pytest_collection_modifyitems(items):
    # Long tests first, or a core would wait for one of them at the end.
    items.sort(key=lambda item: not item.get_closest_marker('long'))
    import_tensorflow()  # as the scripts do: it makes graphs in less time


@pytest.fixture(autouse=True)
def ask_the_driver_again():
    """A process asks the driver once. Each test is to be like a process."""
    gpu.look.cache_clear()
    yield


@pytest.fixture(scope='session')
def null_gpu(tmp_path_factory):
    """Environment variables with which TensorFlow finds the GPU of tests/null_cuda."""
    if not shutil.which('cc'):
        pytest.skip('tests/null_cuda needs a C compiler: apt install gcc libc6-dev')
    folder = str(tmp_path_factory.mktemp('null_cuda'))
    subprocess.run(['sh', os.path.join(ROOT, 'tests/null_cuda/build'), folder],
                   check=True)
    return {'LD_LIBRARY_PATH': folder,
            'LD_PRELOAD': os.path.join(folder, 'libnull_cuda.so')}


@pytest.fixture
def made_up_driver(null_gpu, tmp_path):
    """A function that compiles C into libcuda.so.1, and returns its folder."""
    def made_up_driver(code):
        (tmp_path / 'driver').mkdir()
        (tmp_path / 'driver/cuda.c').write_text(code)
        subprocess.run(['cc', '-w', '-shared', '-fPIC', '-o', 'libcuda.so.1', 'cuda.c'],
                       cwd=str(tmp_path / 'driver'), check=True)
        return str(tmp_path / 'driver')
    return made_up_driver


@pytest.fixture(scope='session')
def mnist_dir():
    """The folder with MNIST's four files; skips where there is none."""
    if not MNIST:
        pytest.skip('MNIST_DATA_DIR names no folder with MNIST')
    assert mnist_files.open_files(MNIST, ()).name == 'mnist'
    return MNIST


@pytest.fixture
def drawn(monkeypatch):
    """A list of the figures that are drawn."""
    from matplotlib.figure import Figure
    drawn, savefig = [], Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), savefig(figure, *args, **kwargs)))
    return drawn


def idx(items):
    """Return uint8 items, [n, 28, 28] or [n], as a gzipped IDX file."""
    header = np.array([0x800 + items.ndim, *items.shape], '>u4').tobytes()
    return gzip.compress(header + items.astype(np.uint8).tobytes(), 1)


def make_up():
    """Return {name: bytes} of files in MNIST's format: 5,256 images and 64.

    The place of a bright band is the class of an image, so it can be learned.
    """
    def images(labels):
        pixels = np.zeros([len(labels), 28, 28])
        for image, label in zip(pixels, labels):
            image[2 * label + 4:2 * label + 7] = 200
        return idx(pixels)

    train, test = np.arange(5256) % 10, np.arange(64) % 10
    return dict(zip(mnist_files.FILES, (images(train), idx(train), images(test),
                                  idx(test))))


@pytest.fixture(scope='session')
def made_up():
    return make_up()


@pytest.fixture
def made_up_dir(tmp_path, made_up):
    """A folder with the files of `made_up`."""
    folder = tmp_path / 'made_up'
    folder.mkdir()
    for name, body in made_up.items():
        (folder / name).write_bytes(body)
    return folder


@contextlib.contextmanager
def serving(answer):
    """Yield the address of a server on 127.0.0.1.

    answer(handler, name) answers a GET of a file.
    """
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
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield 'http://127.0.0.1:%d/' % server.server_port
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def serve():
    """A function that does the same as `serving` until the test ends."""
    with contextlib.ExitStack() as servers:
        yield lambda answer: servers.enter_context(serving(answer))


def once(tmp_path_factory, name, make):
    """Return a folder that make(folder) fills, in one of xdist's workers."""
    base = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        base = base.parent
    with open(str(base / (name + '.made')), 'a+') as made:
        fcntl.flock(made, fcntl.LOCK_EX)
        made.seek(0)
        folder = base / name
        if not made.read():
            shutil.rmtree(str(folder), ignore_errors=True)  # a test failed in make
            folder.mkdir()
            make(folder)
            made.write('yes')
    return folder


@pytest.fixture(scope='session')
def digits_run(tmp_path_factory):
    """A finished run of 500 steps on scikit-learn's digits."""
    def make(folder):
        run_dir = folder / 'run'
        done = run('train_lstm_mnist.py', '--dataset', 'digits', '--seed', 1,
                   '--hidden_size', 32, '--dynamic_rnn', '--lr', 0.005,
                   '--save_every', 100, '--steps', 500, '--device', 'cpu',
                   '--run_dir', run_dir)
        assert done.returncode == 0, done.stderr
        run_dir.joinpath('stdout').write_text(done.stdout)
        run_dir.joinpath('stderr').write_text(done.stderr)

    return once(tmp_path_factory, 'digits_run', make) / 'run'


@pytest.fixture(scope='session')
def whole_run(tmp_path_factory):
    """A finished run of 120 steps."""
    def make(folder):
        assert call('train_lstm_mnist.py', *QUICK, '--steps', 120,
                    '--run_dir', folder / 'run').returncode == 0

    return once(tmp_path_factory, 'whole_run', make) / 'run'


@pytest.fixture(scope='session')
def digits():
    """The test set of scikit-learn's digits."""
    return data.read_data_sets('', dataset='digits').test


def check(part, n):
    """Assert that a data set has n proper examples."""
    assert part.num_examples == n
    assert part.images.shape == (n, 784) and part.images.dtype == np.float32
    assert part.images.min() == 0 and 0.99 < part.images.max() <= 1
    assert part.labels.shape == (n, 10)
    np.testing.assert_array_equal(np.sort(part.labels, 1)[:, -2:], [[0, 1]] * n)


def pixels(image):
    """A test image as uint8 [28, 28], ink bright."""
    return np.rint(255 * image).astype(np.uint8).reshape(28, 28)


def find_digit(image):
    """Return the box and the digit in a `PIL.Image.Image` of one digit."""
    from reading import images
    found = images._find(images._to_colours(images._decode(image)), (28, 28))
    if len(found) > 1:
        raise images.NoDigit(images.SEVERAL)
    return found[0]


def normalise(image):
    return find_digit(image)[1]


def jpeg(image, **options):
    written = io.BytesIO()
    image.save(written, 'JPEG', **options)
    return Image.open(written)


def send(handler, body, length=None):
    """Answer a request with 200 and body; length is the Content-Length."""
    handler.send_response(200)
    handler.send_header('Content-Length',
                        len(body) if length is None else length)
    handler.end_headers()
    handler.wfile.write(body)


def stall(handler, name, body):
    send(handler, body[:100], len(body))
    time.sleep(3)


def redirect(handler, name, body):
    handler.send_response(302)
    handler.send_header('Location', '/' + name)
    handler.end_headers()


def reset(handler, name, body):
    send(handler, body[:100], len(body))
    # Closing without lingering sends a reset.
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                  struct.pack('ii', 1, 0))
    handler.connection.close()


# What a bad mirror does instead of sending a file, and the reason that is printed.
NOT_PUBLISHED = 'sent a file whose sha256 is not the published one'
LIES = {
    'the wrong file': (lambda handler, name, body: send(
        handler, bytes(len(body))), NOT_PUBLISHED),
    'too little': (lambda handler, name, body: send(handler, body[:-1]),
                   NOT_PUBLISHED),
    'less than it says': (lambda handler, name, body: send(
        handler, body[:-1], len(body)), ' bytes read, 1 more expected'),
    'too much': (lambda handler, name, body: send(handler, body + bytes(10 ** 6)),
                 NOT_PUBLISHED),
    'nothing': (lambda handler, name, body: None, 'without response'),
    'no HTTP': (lambda handler, name, body: handler.wfile.write(b'hi\n' * 9),
                'hi'),
    '404': (lambda handler, name, body: handler.send_error(404),
            'HTTP 404 Not Found'),
    '500': (lambda handler, name, body: handler.send_error(500),
            'HTTP 500 Internal Server Error'),
    'a circle': (redirect, 'HTTP 302 Found'),
    'a reset': (reset, 'Connection reset by peer'),
    'half, then silence': (stall, 'timed out'),
}


def full_disk(folder, size='4k', full=True):
    """Return the start of a command, for `run`, that sees a small disk there."""
    mount = 'mount -t tmpfs -o size=%s none "$1"' % size
    fill = 'head -c %s /dev/zero >"$1"/filler' % size.upper() if full else ':'
    return (*_unshare('--map-root-user', '--mount'), 'sh', '-c',
            '%s && %s && shift && exec "$@"' % (mount, fill), 'sh', folder)


def without_root():
    """Return what stands before a script, for `run`, that has no rights of root."""
    return () if os.geteuid() or not _unshare() else ('tests/without_root.py',)


def _unshare(*flags):
    command = ('unshare', '--user', *flags)
    if subprocess.run([*command, 'true'], stderr=subprocess.DEVNULL).returncode:
        pytest.skip('%s is forbidden here, as in Docker' % ' '.join(command))
    return command


def start(script, *args, prefix=(), server=None, env=None, **streams):
    """Start one of the project's scripts; return its process.

    Fork it, unless it needs a Python of its own.

    Args:
        prefix: tuple of str, the start of the command of a Python of its own.
        server: the prefix of a server of `forks`.
        env: {name: value}; None removes a variable. Without a server, they are given to
            a Python of its own.
        streams: cwd and others of `subprocess.Popen`.
    """
    command = [os.path.join(ROOT, script), *map(str, args)]
    variables = dict(
        os.environ, TF_CPP_MIN_LOG_LEVEL=None,  # the script must set it
        PYTHONUNBUFFERED=None,  # with it, Python would have nothing to flush
        **(env or {}))
    options = dict(dict(
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, env={name: value for name, value in variables.items()
                                      if value is not None}), **streams)
    if server is None and (prefix or env):
        return subprocess.Popen([*prefix, sys.executable, *command], **options)
    return forks.Popen(command, server or (), **options)


def run(script, *args, cwd=ROOT, stdout=subprocess.PIPE, prefix=(), server=None, **env):
    """Run one of the project's scripts, as `start` does.

    Return a CompletedProcess with error_lines, those of stderr that begin with
    `error:`.
    """
    process = start(script, *args, prefix=prefix, server=server, env=env, cwd=str(cwd),
                    stdout=stdout)
    stdout, stderr = finish(process)
    assert 'Traceback' not in stderr, stderr
    return _with_error_lines(subprocess.CompletedProcess(
        args, process.returncode, stdout, stderr))


def finish(process):
    """Return stdout and stderr of a process that ends."""
    try:
        return process.communicate(timeout=LIMIT)
    finally:
        process.kill()


def call(script, *args, cwd=ROOT):
    """Do the same as `run` in this process, which has TensorFlow imported."""
    main = importlib.import_module(script[:-len('.py')]).main
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), 'utf-8') for _ in range(2))
    before, argv = os.getcwd(), sys.argv
    os.chdir(str(cwd))
    sys.argv = [os.path.join(ROOT, script), *map(str, args)]
    try:
        with contextlib.redirect_stdout(stdout), \
                contextlib.redirect_stderr(stderr):
            status = main()
    except SystemExit as stop:
        status = stop.code
    finally:
        os.chdir(before)
        sys.argv = argv
    for stream in (stdout, stderr):
        stream.seek(0)
    return _with_error_lines(subprocess.CompletedProcess(
        args, status, stdout.read(), stderr.read()))


def _with_error_lines(done):
    done.error_lines = [line for line in done.stderr.splitlines()
                        if line.startswith('error:')]
    return done


def wait_for(text, stream):
    for line in stream:
        if text in line:
            return
    raise AssertionError('no line with ' + text)


# For graphs that tests build.

def build(lr=1e-3, hidden_size=256, layer_num=2, **more):
    """Build the graph, by default with the tutorial's hyper-parameters."""
    import model
    return model.build(lr, hidden_size, layer_num, **more)


def feed(m, n, keep_prob=1.0, seed=0):
    """Return a feed_dict with n random images and labels."""
    random = np.random.RandomState(seed)
    return {m._X: random.rand(n, 784).astype(np.float32),
            m.y: np.eye(10)[random.randint(10, size=n)],
            m.batch_size: n, m.keep_prob: keep_prob}


def session():
    """Return a session without the graph optimizers, which take longer than a step."""
    import tensorflow as tf
    config = tf.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.Session(config=config)


def initialized(sess):
    """Initialize the variables of the default graph; return the session."""
    import tensorflow as tf
    sess.run(tf.global_variables_initializer())
    return sess


def gradients_of(sess, m, fed):
    """Run a step; return its gradients as {name of the weight: array}.

    After a first step, Adam's first slots are 0.1 times the gradients. Building the
    gradients a second time would take seconds.
    """
    import tensorflow as tf
    names = [v.op.name for v in tf.trainable_variables()]
    slots = {v.op.name[:-len('/Adam')]: v for v in tf.global_variables()
             if v.op.name.endswith('/Adam')}
    sess.run(tf.variables_initializer(list(slots.values())))
    sess.run(m.train_op, fed)
    return {name: 10 * value for name, value in sess.run(
        {name: slots[name] for name in names}).items()}
