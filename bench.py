"""Times and weighs the training beside what one would pick instead of it.

PARTs are step: a training step; size: its cost for other sizes; job: the whole
run; memory: what it takes. All by default, and `--json FILE` keeps the figures.
--horovod measures several workers instead, with what `make horovod` installs.
What is compared runs in processes of its own, in turn, round after round; a
table gives the median over the rounds, the lowest and the highest.
"""
import argparse
import contextlib
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

import data

ROOT = os.path.dirname(os.path.abspath(__file__))
TORCH = os.path.join(ROOT, '.venv-torch')
SIZES = {'batch_size': (32, 64, 128, 256, 512, 1024),
         'layer_num': (1, 2, 3, 4),
         'hidden_size': (64, 128, 256, 512, 1024)}

NAMES = {
    'script': 'train_lstm_mnist.py',
    'dynamic': 'train_lstm_mnist.py --dynamic_rnn',
    'tutorial': "the tutorial's graph",
    'torch': 'PyTorch nn.LSTM',
    'products': 'the matrix products alone',
    'cnn': 'a two-layer CNN',
}


# What is timed. Each returns a function that does one step, and one that names
# all test images at once, or None.

def script(mnist, size, dynamic_rnn=False):
    """The step as `python train_lstm_mnist.py` takes it, without its notes."""
    import train_lstm_mnist
    tf = data.import_tensorflow()
    import model
    sess = tf.Session(config=train_lstm_mnist.session_config(tf, dynamic_rnn))
    m = model.build(1e-3, size['hidden_size'], size['layer_num'], dynamic_rnn)
    sess.run(tf.global_variables_initializer())

    def step():
        images, labels = mnist.train.next_batch(size['batch_size'])
        sess.run([m.cross_entropy, m.weights_sum, m.train_op], {
            m.images: images, m.y: labels, m.keep_prob: 0.5,
            m.batch_size: size['batch_size']})

    def predict():
        sess.run([m.accuracy, m.cross_entropy], {
            m.images: mnist.test.images, m.y: mnist.test.labels,
            m.keep_prob: 1.0, m.batch_size: mnist.test.num_examples})

    return step, predict


def tutorial(mnist, size, job=False):
    """The tutorial, as it stands but for one cell a layer.

    With `job` it runs to its end and prints what the tutorial prints.
    """
    import tensorflow as tf
    from tensorflow.contrib import rnn

    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    sess = tf.Session(config=config)

    lr = 1e-3
    batch_size = tf.placeholder(tf.int32, [])
    keep_prob = tf.placeholder(tf.float32, [])
    timestep_size = 28
    hidden_size = size['hidden_size']
    layer_num = size['layer_num']
    class_num = 10
    _X = tf.placeholder(tf.float32, [None, 784])
    y = tf.placeholder(tf.float32, [None, class_num])

    X = tf.reshape(_X, [-1, 28, 28])

    def lstm_cell():
        cell = rnn.BasicLSTMCell(num_units=hidden_size, forget_bias=1.0,
                                 state_is_tuple=True)
        return rnn.DropoutWrapper(cell=cell, input_keep_prob=1.0,
                                  output_keep_prob=keep_prob)

    mlstm_cell = rnn.MultiRNNCell([lstm_cell() for _ in range(layer_num)],
                                  state_is_tuple=True)
    state = mlstm_cell.zero_state(batch_size, dtype=tf.float32)
    outputs = list()
    with tf.variable_scope('RNN'):
        for timestep in range(timestep_size):
            if timestep > 0:
                tf.get_variable_scope().reuse_variables()
            (cell_output, state) = mlstm_cell(X[:, timestep, :], state)
            outputs.append(cell_output)
    h_state = outputs[-1]

    W = tf.Variable(tf.truncated_normal([hidden_size, class_num], stddev=0.1),
                    dtype=tf.float32)
    bias = tf.Variable(tf.constant(0.1, shape=[class_num]), dtype=tf.float32)
    y_pre = tf.nn.softmax(tf.matmul(h_state, W) + bias)
    cross_entropy = -tf.reduce_mean(y * tf.log(y_pre))
    train_op = tf.train.AdamOptimizer(lr).minimize(cross_entropy)
    correct_prediction = tf.equal(tf.argmax(y_pre, 1), tf.argmax(y, 1))
    accuracy = tf.reduce_mean(tf.cast(correct_prediction, 'float'))
    sess.run(tf.global_variables_initializer())

    def step():
        batch = mnist.train.next_batch(size['batch_size'])
        sess.run(train_op, feed_dict={
            _X: batch[0], y: batch[1], keep_prob: 0.5,
            batch_size: size['batch_size']})
        return batch

    def predict():
        return sess.run(accuracy, feed_dict={
            _X: mnist.test.images, y: mnist.test.labels, keep_prob: 1.0,
            batch_size: mnist.test.images.shape[0]})

    if job:
        print(mnist.train.images.shape)
        for i in range(size['steps']):
            batch = step()
            if (i + 1) % 200 == 0:
                train_accuracy = sess.run(accuracy, feed_dict={
                    _X: batch[0], y: batch[1], keep_prob: 1.0,
                    batch_size: size['batch_size']})
                print('Iter%d, step %d, training accuracy %g' % (
                    mnist.train.epochs_completed, i + 1, train_accuracy))
        print('test accuracy %g' % predict())
    return step, predict


def torch(mnist, size, job=False):
    """The same network, loss and optimizer with PyTorch's nn.LSTM."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(28, size['hidden_size'], size['layer_num'],
                                batch_first=True,
                                dropout=0.5 * (size['layer_num'] > 1))
            self.dropout = nn.Dropout(0.5)
            self.linear = nn.Linear(size['hidden_size'], 10)

        def forward(self, images):
            outputs, _ = self.lstm(images.view(-1, 28, 28))
            return self.linear(self.dropout(outputs[:, -1]))

    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    cross_entropy = nn.CrossEntropyLoss()
    images, labels, test_images, test_labels = map(torch.from_numpy, mnist)
    place, order = len(images), None

    def step():
        nonlocal place, order
        if place + size['batch_size'] > len(images):
            place, order = 0, torch.randperm(len(images))
        batch = order[place:place + size['batch_size']]
        place += size['batch_size']
        optimizer.zero_grad()
        # The tutorial's loss is a mean over the classes, too.
        loss = cross_entropy(net(images[batch]), labels[batch]) / 10
        loss.backward()
        optimizer.step()
        return batch

    def share_right(images, labels):
        net.eval()
        with torch.no_grad():
            share = (net(images).argmax(1) == labels).float().mean().item()
        net.train()
        return share

    def predict():
        return share_right(test_images, test_labels)

    if job:
        for i in range(size['steps']):
            batch = step()
            if (i + 1) % 200 == 0:
                print('step %d, training accuracy %g' % (
                    i + 1, share_right(images[batch], labels[batch])))
        print('test accuracy %g' % predict())
    return step, predict


def products(mnist, size):
    """A step's matrix products, none of which waits for another.

    At each of 28 rows a layer's kernel takes one forward, one for the gradient
    of its inputs and one for that of the kernel.
    """
    import train_lstm_mnist
    tf = data.import_tensorflow()
    n, hidden = size['batch_size'], size['hidden_size']
    config = train_lstm_mnist.session_config(tf)
    # TensorFlow would do products that are the same once.
    config.graph_options.optimizer_options.opt_level = -1
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    sess = tf.Session(config=config)
    done = []
    for layer in range(size['layer_num']):
        width = (hidden if layer else 28) + hidden
        inputs, kernel, transposed, gates = (
            tf.Variable(tf.random_normal(shape)) for shape in (
                [n, width], [width, 4 * hidden], [4 * hidden, width],
                [n, 4 * hidden]))
        for _ in range(28):
            done += [tf.matmul(inputs, kernel), tf.matmul(gates, transposed),
                     tf.matmul(inputs, gates, transpose_a=True)]
    run = tf.group(*done)
    sess.run(tf.global_variables_initializer())
    return (lambda: sess.run(run)), None


def cnn(mnist, size):
    """The two-layer CNN that such tutorials have beside the LSTM."""
    tf = data.import_tensorflow()
    keep_prob = tf.placeholder(tf.float32, [])
    _X = tf.placeholder(tf.float32, [None, 784])
    y = tf.placeholder(tf.float32, [None, 10])

    def conv_and_pool(images, channels):
        conv = tf.layers.conv2d(images, channels, 5, padding='same',
                                activation=tf.nn.relu)
        return tf.layers.max_pooling2d(conv, 2, 2)

    pooled = conv_and_pool(tf.reshape(_X, [-1, 28, 28, 1]), 32)
    pooled = tf.layers.flatten(conv_and_pool(pooled, 64))
    dense = tf.layers.dense(pooled, 1024, activation=tf.nn.relu)
    logits = tf.layers.dense(tf.nn.dropout(dense, keep_prob), 10)
    loss = tf.losses.softmax_cross_entropy(y, logits)
    train_op = tf.train.AdamOptimizer(1e-4).minimize(loss)
    accuracy = tf.reduce_mean(tf.cast(tf.equal(
        tf.argmax(logits, 1), tf.argmax(y, 1)), tf.float32))
    sess = tf.Session()
    sess.run(tf.global_variables_initializer())

    def step():
        images, labels = mnist.train.next_batch(size['batch_size'])
        sess.run(train_op, {_X: images, y: labels, keep_prob: 0.5})

    def predict():
        sess.run(accuracy, {_X: mnist.test.images, y: mnist.test.labels,
                            keep_prob: 1.0})

    return step, predict


# The processes that are timed.

def work(name, size):
    """Prepares what `name` says, then does what stdin asks for, line by line.

    A number asks for so many steps and is answered with the seconds of each;
    `predict` with the MiB that were resident before, and at most meanwhile.
    """
    started = time.perf_counter()
    phases = {}

    def phase(what):
        nonlocal started
        phases[what] = time.perf_counter() - started
        started = time.perf_counter()

    if name == 'torch':
        import torch  # noqa: F401
        phase('import')
        mnist = read_arrays(size['data_dir'])
    else:
        data.import_tensorflow()
        phase('import')
        mnist = name != 'products' and quietly(data.read_data_sets,
                                               size['data_dir'])
    phase('data')
    kept = contextlib.ExitStack()
    if name in ('script', 'dynamic', 'products'):
        import train_lstm_mnist
        kept.enter_context(train_lstm_mnist.memory_kept())
    if name == 'dynamic':
        step, predict = script(mnist, size, dynamic_rnn=True)
    else:
        step, predict = globals()[name](mnist, size)
    phase('graph')
    step()
    phase('first step')
    print(json.dumps(phases), flush=True)
    for line in sys.stdin:
        if line.strip() == 'predict':
            kept.close()
            before = resident('VmRSS')
            with open('/proc/self/clear_refs', 'w') as f:
                f.write('5')  # has the peak begin anew: proc(5)
            predict()
            answer = {'before': before, 'peak': resident('VmHWM')}
        else:
            answer = []
            for _ in range(int(line)):
                started = time.perf_counter()
                step()
                answer.append(time.perf_counter() - started)
        print(json.dumps(answer), flush=True)


def run_job(name, size):
    """Does the whole run of the tutorial or of PyTorch, or `run_horovod`."""
    if name == 'torch':
        torch(read_arrays(size['data_dir']), size, job=True)
    elif name == 'horovod':
        run_horovod(size)
    else:
        os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'
        from tensorflow.examples.tutorials.mnist import input_data
        tutorial(input_data.read_data_sets(size['data_dir'], one_hot=True),
                 size, job=True)


def run_horovod(size):
    """Prints, on worker 0, what the workers that horovodrun began take.

    As a JSON dict of medians over steps, in seconds: `step`; `alone`, the same
    step without the others; `reduce`, an all-reduce of a float for every
    weight, and `signal`, one of a single float; and `bytes` of the former.
    """
    import numpy as np

    import train_lstm_mnist
    workers = train_lstm_mnist.Workers(horovod=True)
    tf = data.import_tensorflow()
    import model
    config = train_lstm_mnist.session_config(tf, workers=workers)
    each = size['batch_size'] // workers.size
    images = np.random.rand(each, 784).astype(np.float32)
    labels = np.eye(10)[np.arange(each) % 10]

    def median_of(make, times):
        with tf.Graph().as_default(), tf.Session(config=config) as sess:
            run = make(sess)
            seconds = []
            for _ in range(times):
                started = time.perf_counter()
                run()
                seconds.append(time.perf_counter() - started)
        return statistics.median(seconds[times // 3:])

    def training(distribute):
        def make(sess):
            m = model.build(1e-3, size['hidden_size'], size['layer_num'],
                            distribute=distribute)
            sess.run(tf.global_variables_initializer())
            return lambda: sess.run([m.cross_entropy, m.train_op], {
                m.images: images, m.y: labels, m.keep_prob: 0.5,
                m.batch_size: each})
        return make

    def reduction(count):
        def make(sess):
            # A constant would be reduced once and for all.
            reduced = workers.mean(tf.Variable(tf.ones([count])))
            sess.run(tf.global_variables_initializer())
            return lambda: sess.run(reduced.op)
        return make

    with tf.Graph().as_default():
        model.build(1e-3, size['hidden_size'], size['layer_num'])
        count = sum(v.shape.num_elements() for v in tf.trainable_variables())
    with train_lstm_mnist.memory_kept():
        alone = median_of(training(lambda optimizer: optimizer), 60)
        figures = {'step': median_of(training(workers.distribute), 60)
                           if workers.size > 1 else alone,
                   'alone': alone, 'reduce': median_of(reduction(count), 60),
                   'signal': median_of(reduction(1), 60), 'bytes': 4 * count}
    if workers.rank == 0:
        print('\n' + json.dumps(figures), flush=True)


def quietly(function, *args):
    with contextlib.redirect_stdout(sys.stderr):
        return function(*args)


def read_arrays(folder):
    """Reads MNIST without TensorFlow, as images, labels, and those of the test.

    Images are float32 [n, 784] in [0, 1], labels int64 [n].
    """
    import gzip

    import numpy as np

    def read(name, header, kind):
        with gzip.open(os.path.join(folder, name)) as f:
            return np.frombuffer(f.read()[header:], np.uint8).astype(kind)

    images, labels, test_images, test_labels = (
        read(name, 16, 'float32').reshape(-1, 784) / 255 if 'images' in name
        else read(name, 8, 'int64') for name in data.FILES)
    return (images[data.VALIDATION_SIZE:], labels[data.VALIDATION_SIZE:],
            test_images, test_labels)


def resident(field):
    """Returns a field of /proc/self/status in MiB."""
    with open('/proc/self/status') as f:
        line, = (line for line in f if line.startswith(field + ':'))
    return int(line.split()[1]) / 1024


class Worker:
    """A process that prepares and then waits to be asked; see `work`."""

    def __init__(self, name, size):
        self.name = name
        self.process = subprocess.Popen(
            command(name, '--work', size), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True)
        self.phases = self._answer()

    def ask(self, what):
        self.process.stdin.write('%s\n' % what)
        self.process.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise data.UserError('%s ended: %s' % (
                NAMES[self.name],
                ''.join(self.process.stderr.read().splitlines()[-1:])))
        return json.loads(line)

    def close(self):
        self.process.communicate()


def command(name, what, size):
    return [os.path.join(TORCH, 'bin', 'python') if name == 'torch'
            else sys.executable,
            os.path.join(ROOT, 'bench.py'), what, name, json.dumps(size)]


# The parts.

def in_turn(names, size, rounds, warm_up, steps):
    """Returns {name: {'seconds': [one a round], 'phases': ...}}.

    Seconds are the median of so many steps.
    """
    workers = {name: Worker(name, size) for name in names}
    figures = {name: {'seconds': [], 'phases': worker.phases}
               for name, worker in workers.items()}
    for name, worker in workers.items():
        worker.ask(warm_up)
    for _ in range(rounds):
        for name, worker in random.sample(sorted(workers.items()), len(names)):
            figures[name]['seconds'].append(statistics.median(worker.ask(
                steps)))
    for worker in workers.values():
        worker.close()
    return figures


def measure_step(rivals, size, rounds):
    return in_turn(['script', 'dynamic'] + rivals + ['products'], size, rounds,
                   warm_up=100, steps=20)


def measure_size(rivals, size, rounds):
    """Returns [[{flag: value}, figures of `in_turn`]], one flag at a time."""
    return [[{flag: value}, in_turn(['script', 'products'],
                                    dict(size, **{flag: value}), rounds,
                                    warm_up=3, steps=5)]
            for flag, values in SIZES.items() for value in values]


def measure_job(rivals, size, rounds, steps=2000):
    """Returns {name: {'seconds': [...], 'peak': [MiB], 'says': [last line]}}."""
    names = ['script'] + rivals
    figures = {name: {'seconds': [], 'peak': [], 'says': []} for name in names}
    for _ in range(rounds):
        for name in random.sample(sorted(names), len(names)):
            with tempfile.TemporaryDirectory() as scratch:
                argv = command(name, '--job', dict(size, steps=steps))
                if name == 'script':
                    argv = [sys.executable,
                            os.path.join(ROOT, 'train_lstm_mnist.py'),
                            '--data_dir', size['data_dir'],
                            '--steps', str(steps),
                            '--run_dir', os.path.join(scratch, 'run')]
                started = time.perf_counter()
                process = subprocess.Popen(argv, stdout=subprocess.PIPE,
                                           stderr=subprocess.DEVNULL,
                                           universal_newlines=True)
                last = ([''] + list(process.stdout))[-1]
                _, status, usage = os.wait4(process.pid, 0)
                seconds = time.perf_counter() - started
            if status or not last.startswith('test accuracy'):
                raise data.UserError(
                    '%s ended with status %d: run it alone to see why: %s'
                    % (NAMES[name], status >> 8, ' '.join(argv)))
            figures[name]['seconds'].append(seconds)
            figures[name]['peak'].append(usage.ru_maxrss / 1024)
            figures[name]['says'].append(last.strip())
    return figures


def measure_horovod(rivals, size, rounds):
    """Returns {workers: {'step': [seconds], ...}}, see `run_horovod`.

    Of 1 and 2 workers with the cores shared, and under 'batch', for 1 worker
    with all of them, {images: [seconds of a step]}.
    """
    figures = {workers: [] for workers in (1, 2)}
    batches = {images: [] for images in (8, 32, 128, 512)}
    for _ in range(rounds):
        for workers in figures:
            figures[workers].append(_horovodrun(workers, size))
        for images in batches:
            batches[images].append(_horovodrun(1, dict(
                size, batch_size=images))['alone'])
    return {'workers': {workers: {key: [one[key] for one in of] for key in of[0]}
                        for workers, of in figures.items()}, 'batch': batches}


def _horovodrun(workers, size):
    horovodrun = os.path.join(os.path.dirname(sys.executable), 'horovodrun')
    if not os.path.exists(horovodrun):
        raise data.UserError('--horovod: %s is missing: make horovod'
                             % horovodrun)
    done = subprocess.run(
        [horovodrun, '-np', str(workers)] + command('horovod', '--job', size),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    found = re.findall(r'^\[0\]<stdout>:({.*})$', done.stdout, re.M)
    if not found:
        raise data.UserError('horovodrun ended without figures: %s' % (
            ''.join(done.stderr.splitlines()[-1:])))
    return json.loads(found[0])


def measure_memory(rivals, size, rounds):
    """Returns {name: {'before': [MiB], 'peak': [MiB]}} of naming all at once."""
    names = ['script'] + rivals + ['cnn']
    figures = {name: {'before': [], 'peak': []} for name in names}
    for _ in range(rounds):
        for name in names:
            worker = Worker(name, size)
            worker.ask(5)
            for key, value in worker.ask('predict').items():
                figures[name][key].append(value)
            worker.close()
    return figures


# The tables.

def spread(values, form):
    """Returns `median (lowest to highest)`."""
    return '%s (%s to %s)' % tuple(
        form % of(values) for of in (statistics.median, min, max))


def ratios(figures, name, other):
    if other not in figures:
        return '-'
    return spread([a / b for a, b in zip(figures[name]['seconds'],
                                         figures[other]['seconds'])], '%.2f')


def table(*rows):
    header, *rows = rows
    for row in [header, ['---'] * len(header)] + rows:
        print('| %s |' % ' | '.join(map(str, row)))
    print(flush=True)


def print_step(figures):
    table(['a training step', 'ms', "of the tutorial's", "of PyTorch's"], *(
        [NAMES[name], spread([1000 * s for s in of['seconds']], '%.0f'),
         ratios(figures, name, 'tutorial'), ratios(figures, name, 'torch')]
        for name, of in figures.items()))
    phases = ['import', 'data', 'graph', 'first step']
    table(['before the second step, s'] + phases, *(
        [NAMES[name]] + ['%.1f' % of['phases'][phase] for phase in phases]
        for name, of in figures.items() if name != 'products'))


def print_size(sizes):
    table(['a training step', 'ms', 'of its matrix products'], *(
        [' '.join('--%s %d' % pair for pair in size.items()),
         spread([1000 * s for s in figures['script']['seconds']], '%.0f'),
         ratios(figures, 'script', 'products')] for size, figures in sizes))


def print_job(figures):
    table(['the whole run', 's', "of the tutorial's", "of PyTorch's",
           'resident at most, MiB'], *(
        [NAMES[name], spread(of['seconds'], '%.0f'),
         ratios(figures, name, 'tutorial'), ratios(figures, name, 'torch'),
         spread(of['peak'], '%.0f')] for name, of in figures.items()))


def print_memory(figures):
    table(['naming 10,000 images at once', 'before, MiB', 'more at most, MiB'],
          *([NAMES[name], spread(of['before'], '%.0f'),
             spread([peak - before for before, peak
                     in zip(of['before'], of['peak'])], '%.0f')]
            for name, of in figures.items()))


def print_horovod(figures):
    workers = figures['workers']
    table(['workers, the cores shared', 'ms a step', 'images/s',
           'ms without the others', 'ms an all-reduce of %.1f MB'
           % (workers[1]['bytes'][0] / 1e6), 'ms one of 4 bytes'], *(
        [count, spread([1000 * s for s in of['step']], '%.0f'),
         '%.0f' % (128 / statistics.median(of['step']))]
        + [spread([1000 * s for s in of[key]], '%.1f')
           if key == 'alone' or count > 1 else '-'
           for key in ('alone', 'reduce', 'signal')]
        for count, of in workers.items()))

    # A step of b images is fixed + b * image, by least squares on ratios, so
    # that small batches count as much as large ones.
    sizes = sorted(figures['batch'])
    seconds = [statistics.median(figures['batch'][b]) for b in sizes]
    (ff, fi, ii), (f, i) = [
        [sum(x) for x in zip(*rows)] for rows in (
            [(1 / s ** 2, b / s ** 2, (b / s) ** 2)
             for b, s in zip(sizes, seconds)],
            [(1 / s, b / s) for b, s in zip(sizes, seconds)])]
    image = (i * ff - f * fi) / (ii * ff - fi ** 2)
    fixed = (f - fi * image) / ff
    signal = statistics.median(workers[2]['signal'])
    size = workers[1]['bytes'][0]
    print('A model: on N machines a step of B images takes %.1f + %.3f B / N ms '
          'of computing, which fits the steps of %s images here within %.0f %%, '
          'an all-reduce 2 (N - 1) / N times %.1f MB at the network\'s rate, and '
          '%.1f ms times N - 1 for its messages.\n' % (
              1000 * fixed, 1000 * image, ', '.join(map(str, sizes)),
              100 * max(abs((fixed + b * image) / s - 1)
                        for b, s in zip(sizes, seconds)),
              size / 1e6, 1000 * signal))

    def network(count, rate):
        return (2 * (count - 1) / count * size * 8 / rate
                + (count - 1) * signal)

    rates = (10e9, 100e9)
    rows = []
    for count in (1, 2, 4, 8, 16, 32):
        row = [count]
        for rate in rates:
            step = fixed + 128 / count * image + network(count, rate)
            row += ['%.0f' % (1000 * step),
                    '%.1f' % ((fixed + 128 * image) / step)]
        for rate in rates:
            # (fixed + B image) / (count step) = 0.8, for B
            row.append('-' if count == 1 else '%.0f' % (
                (0.8 * count * (fixed + network(count, rate)) - fixed)
                / (0.2 * image)))
        rows.append(row)
    table(['machines', '128 images, 10 Gbit/s: ms', 'times as fast',
           '100 Gbit/s: ms', 'times as fast', 'images for 80 % of N times, '
           '10 Gbit/s', '100 Gbit/s'], *rows)


PARTS = {
    'step': (measure_step, print_step),
    'size': (measure_size, print_size),
    'job': (measure_job, print_job),
    'memory': (measure_memory, print_memory),
}


def machine():
    """Returns, in one line, what the figures are of."""
    with open('/proc/cpuinfo') as f:
        model, = {line.split(':')[1].strip() for line in f
                  if line.startswith('model name')}
    return '%d cores of an %s, Python %s' % (
        len(os.sched_getaffinity(0)), model, sys.version.split()[0])


def parse_flags(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)

    def part(text):
        if text not in PARTS:
            raise argparse.ArgumentTypeError('must be of %s, not %r' % (
                ', '.join(PARTS), text))
        return text

    parser.add_argument('parts', metavar='PART', nargs='*', type=part,
                        help='of %s (default: all)' % ', '.join(PARTS))
    parser.add_argument('--data_dir', default='MNIST_data',
                        help="the folder with MNIST's four files (default: "
                        '%(default)s)')
    parser.add_argument('--rounds', type=int, default=5, choices=range(1, 1000),
                        metavar='N', help='default: %(default)s')
    parser.add_argument('--horovod', action='store_true',
                        help='measure several workers instead')
    parser.add_argument('--json', metavar='FILE', help='keep the figures there')
    return parser.parse_args(argv)


@data.reports_errors
def main(argv=None):
    """Measures as the flags in argv say; returns the exit status."""
    if sys.argv[1:2] in (['--work'], ['--job']):  # see `command`
        _, what, name, settings = sys.argv
        {'--work': work, '--job': run_job}[what](name, json.loads(settings))
        return 0
    flags = parse_flags(argv)
    data.find_files(flags.data_dir, [])
    rivals = ['tutorial', 'torch']
    if not os.path.exists(os.path.join(TORCH, 'installed')):
        print('note: without PyTorch, which make bench installs',
              file=sys.stderr)
        rivals.remove('torch')
    size = dict(data_dir=os.path.abspath(flags.data_dir), batch_size=128,
                hidden_size=256, layer_num=2)
    print(machine() + '\n', flush=True)
    figures = {'machine': machine()}
    if flags.horovod:
        parts = {'horovod': (measure_horovod, print_horovod)}
    else:
        parts = {part: PARTS[part] for part in flags.parts or PARTS}
    for part, (measure, show) in parts.items():
        figures[part] = measure(rivals, size, flags.rounds)
        show(figures[part])
    if flags.json:
        data.write_whole(flags.json, json.dumps(figures, indent=2).encode())
    return 0


if __name__ == '__main__':
    sys.exit(main())
