"""Several workers on this machine, and by them a model of many machines.

    python -m bench.machines SIZE    what each worker runs; see `run`
"""
import collections
import json
import os
import re
import statistics
import subprocess
import sys
import time

from bench.measure import ROOT
from bench.tables import spread, table
from training.errors import UserError

BATCHES = (8, 32, 128, 512)  # images, by which the model is fitted
COUNTS = (1, 2, 4, 8, 16, 32)  # machines
RATES = (10e9, 100e9)  # bit/s
BUSY = 0.8  # the share of N times one machine's images that is asked for


def run(size):
    """Prints, on worker 0, what the workers that horovodrun began take.

    As a JSON dict of medians over steps, in seconds: `step`; `alone`, the same
    step without the others; and, with several, `reduce`, an all-reduce of a
    float for every weight, and `signal`, one of a single float; and `bytes` of
    the former.
    """
    from training.workers import ALONE, join
    workers = join(horovod=True)
    import tensorflow as tf

    import model
    from training import device, memory
    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    device.share_cores(config, workers=workers)
    with tf.Graph().as_default():
        model.build(1e-3, size['hidden_size'], size['layer_num'])
        count = sum(v.shape.num_elements() for v in tf.trainable_variables())
    with memory.kept():
        figures = {'alone': _median(config, _training(size, workers, ALONE)),
                   'bytes': 4 * count}
        figures['step'] = figures['alone']
        if workers is not ALONE:
            figures.update(
                step=_median(config, _training(size, workers, workers)),
                reduce=_median(config, _reduction(count, workers)),
                signal=_median(config, _reduction(1, workers)))
    if workers.is_rank0:
        print('\n' + json.dumps(figures), flush=True)


def _median(config, make, times=60):
    """Returns the median seconds of what make(sess) returns, once it is warm."""
    import tensorflow as tf
    with tf.Graph().as_default(), tf.Session(config=config) as sess:
        step = make(sess)
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[times // 3:])


def _training(size, workers, distributed):
    """Returns a function for `_median`: a step on this worker's share."""
    import numpy as np
    import tensorflow as tf

    import model
    images, labels = workers.shard([
        np.random.rand(size['batch_size'], 784).astype(np.float32),
        np.eye(10)[np.arange(size['batch_size']) % 10]])

    def make(sess):
        m = model.build(1e-3, size['hidden_size'], size['layer_num'],
                        distribute=distributed.distribute)
        sess.run(tf.global_variables_initializer())
        return lambda: sess.run([m.cross_entropy, m.train_op], {
            m.images: images, m.y: labels, m.keep_prob: 0.5,
            m.batch_size: len(images)})
    return make


def _reduction(count, workers):
    """Returns a function for `_median`: an all-reduce of so many floats."""
    import tensorflow as tf

    def make(sess):
        # A constant would be reduced once and for all.
        reduced = workers.mean(tf.Variable(tf.ones([count])))
        sess.run(tf.global_variables_initializer())
        return lambda: sess.run(reduced.op)
    return make


def measure(rivals, size, rounds):
    """Returns {'workers': ..., 'batch': ...}.

    workers: {workers: {'step': [seconds], ...}}, see `run`, of 1 and 2 workers
    with the cores shared; batch: {images: [seconds of a step]} of 1 worker.
    """
    figures = {workers: [] for workers in (1, 2)}
    batches = {images: [] for images in BATCHES}
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
        raise UserError('--horovod: %s is missing: make horovod' % horovodrun)
    done = subprocess.run(
        [horovodrun, '-np', str(workers), sys.executable, '-m',
         'bench.machines', json.dumps(size)], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True)
    found = re.findall(r'^\[0\]<stdout>:({.*})$', done.stdout, re.M)
    if not found:
        raise UserError('horovodrun ended without figures: %s' % (
            ''.join(done.stderr.splitlines()[-1:])))
    return json.loads(found[0])


class Model(collections.namedtuple('Model', ['fixed', 'image', 'bytes',
                                             'signal'])):
    """What a step takes on many machines, by what it takes on one.

    fixed, image: seconds of a step of B images on one, fixed + B * image.
    bytes: of an all-reduce, which sends 2 (N - 1) / N of them at the network's
        rate.
    signal: seconds of its messages, N - 1 times.
    """

    def network(self, count, rate):
        """Returns the seconds of an all-reduce on so many machines."""
        return (2 * (count - 1) / count * self.bytes * 8 / rate
                + (count - 1) * self.signal)

    def step(self, images, count, rate):
        """Returns the seconds of a step of so many images in all."""
        return (self.fixed + images / count * self.image
                + self.network(count, rate))

    def images(self, count, rate):
        """Returns the images a step with which the machines are `BUSY`."""
        # (fixed + B image) / (count step) = BUSY, for B
        return (BUSY * count * (self.fixed + self.network(count, rate))
                - self.fixed) / ((1 - BUSY) * self.image)


def fit(seconds):
    """Returns (fixed, image) by least squares on ratios.

    So small batches count as much as large ones.

    Args:
        seconds: {images: seconds of a step}.
    """
    (ff, fi, ii), (f, i) = [
        [sum(x) for x in zip(*rows)] for rows in (
            [(1 / s ** 2, b / s ** 2, (b / s) ** 2)
             for b, s in seconds.items()],
            [(1 / s, b / s) for b, s in seconds.items()])]
    image = (i * ff - f * fi) / (ii * ff - fi ** 2)
    return (f - fi * image) / ff, image


def show(figures):
    """Prints what `measure` returns, and the model."""
    workers = figures['workers']
    _print_workers(workers)
    seconds = {images: statistics.median(figures['batch'][images])
               for images in sorted(figures['batch'])}
    model = Model(*fit(seconds), bytes=workers[1]['bytes'][0],
                  signal=statistics.median(workers[2]['signal']))
    print('A model: on N machines a step of B images takes %.1f + %.3f B / N ms '
          'of computing, which fits the steps of %s images here within %.0f %%, '
          'an all-reduce 2 (N - 1) / N times %.1f MB at the network\'s rate, and '
          '%.1f ms times N - 1 for its messages.\n' % (
              1000 * model.fixed, 1000 * model.image,
              ', '.join(map(str, seconds)),
              100 * max(abs((model.fixed + images * model.image) / s - 1)
                        for images, s in seconds.items()),
              model.bytes / 1e6, 1000 * model.signal))
    table(['machines', '128 images, 10 Gbit/s: ms', 'times as fast',
           '100 Gbit/s: ms', 'times as fast', 'images for 80 % of N times, '
           '10 Gbit/s', '100 Gbit/s'], *(_row(model, n) for n in COUNTS))


def _print_workers(workers):
    table(['workers, the cores shared', 'ms a step', 'images/s',
           'ms without the others', 'ms an all-reduce of %.1f MB'
           % (workers[1]['bytes'][0] / 1e6), 'ms one of 4 bytes'], *(
        [count, spread([1000 * s for s in of['step']], '%.0f'),
         '%.0f' % (128 / statistics.median(of['step']))]
        + [spread([1000 * s for s in of[key]], '%.1f')
           if key == 'alone' or count > 1 else '-'
           for key in ('alone', 'reduce', 'signal')]
        for count, of in workers.items()))


def _row(model, count):
    row = [count]
    for rate in RATES:
        step = model.step(128, count, rate)
        row += ['%.0f' % (1000 * step),
                '%.1f' % (model.step(128, 1, rate) / step)]
    for rate in RATES:
        row.append('-' if count == 1 else '%.0f' % model.images(count, rate))
    return row


if __name__ == '__main__':
    run(json.loads(sys.argv[1]))
