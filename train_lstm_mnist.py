"""Train a multi-layer LSTM that reads an MNIST digit row by row.

With no flags this is the tutorial: two layers of 256 units, Adam at 1e-3,
dropout 0.5, 2000 steps of 128 images, and the 10,000 test images at the end.
Its transcript goes to stdout, all other output to stderr.
"""
import argparse
import gc
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # not with -I

from training import flags as kinds
from training.environment import import_tensorflow
from training.errors import UserError, reports_errors, require
from training.mnist_files import NoMirrorError
from training.workers import join

# The tutorial's accuracy in less time.
QUICK = dict(lr=0.01, lr_schedule='linear', keep_prob=0.9, hidden_size=128, steps=1200)


def parse_flags(argv=None):
    """Return the flags as an `argparse.Namespace`; see `training.flags.parse`."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    # The tutorial's hyper-parameters.
    parser.add_argument('--lr', default=1e-3, type=kinds.number(
        float, 'a number above 0', lambda lr: 0 < lr < float('inf')),
        help="Adam's learning rate (default: %(default)s)")
    parser.add_argument('--batch_size', default=128, type=kinds.whole(1),
                        help='images a step (default: %(default)s)')
    parser.add_argument('--keep_prob', default=0.5, type=kinds.number(
        float, 'a number above 0 and at most 1', lambda p: 0 < p <= 1),
        help='chance that dropout keeps a unit (default: %(default)s)')
    parser.add_argument('--hidden_size', default=256, type=kinds.whole(1, 8192),
                        help='units of an LSTM layer (default: %(default)s)')
    parser.add_argument('--layer_num', default=2, type=kinds.whole(1, 64),
                        help='LSTM layers (default: %(default)s)')
    parser.add_argument('--steps', default=2000, type=kinds.whole(1, 2 ** 31 - 1),
                        help='training steps (default: %(default)s)')
    # Flags that the tutorial does not have.
    parser.add_argument('--lr_schedule', default='constant',
                        choices=('constant', 'linear'),
                        help='linear: the learning rate rises for a tenth of the '
                        'steps and then falls to 0 (default: %(default)s)')
    parser.add_argument('--shift', default=0, type=kinds.whole(0, 27),
                        help='pixels by which an image is shifted at most, at random, '
                        'in each step (default: %(default)s)')
    parser.add_argument('--dynamic_rnn', action='store_true',
                        help='unroll with tf.nn.dynamic_rnn (default: by hand)')
    parser.add_argument('--quick', action='store_true',
                        help="the tutorial's accuracy in less time, with other "
                        'defaults: ' + ' '.join('--%s %s' % flag
                                                for flag in QUICK.items()))
    kinds.add_run_flags(parser)
    return kinds.parse(parser, argv, QUICK)


def train(flags, run):
    """Run the tutorial's script: session, data, graph, loop, test.

    Args:
        flags: `argparse.Namespace`, as `parse_flags` returns it.
        run: `training.loop.Run`, what happens besides: checkpoints, progress etc.
    """
    import tensorflow as tf

    import data
    import model
    from reading.errors import Errors

    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    with tf.Session(config=run.on_device(config)) as sess:  # on a GPU, or the CPU
        mnist = data.read_data_sets(flags.data_dir, one_hot=True, dataset=flags.dataset,
                                    mirrors=run.mirrors, seed=flags.seed,
                                    num_validation=flags.num_validation)
        print(mnist.train.images.shape)
        # The tutorial's steps 1 and 2, and the loss of step 3, are in model.py.
        network = (flags.hidden_size, flags.layer_num, flags.dynamic_rnn,
                   model.Sizes(*mnist.source.shape, mnist.source.class_num))
        m = model.build(model.learning_rate(flags.lr, flags.lr_schedule, flags.steps),
                        *network, run.workers.distribute)
        # Step 3: train and test. `begin` restores the run that --resume names.
        sess.run(tf.global_variables_initializer())
        run.begin(sess, m, mnist, lambda: model.build_export(*network))
        for step in run.steps():  # from 1, or from where the run was stopped
            batch = mnist.train.next_batch(flags.batch_size)
            if flags.shift:
                batch = data.shifted(batch, flags.shift, mnist.source.shape,
                                     [flags.seed, step])
            images, labels = run.workers.shard(batch)  # all, if it trains alone
            loss, _ = sess.run([m.cross_entropy, m.train_op], feed_dict={
                m._X: images, m.y: labels, m.keep_prob: flags.keep_prob,
                m.batch_size: len(images)})
            if step % 200 == 0:
                train_accuracy = sess.run(m.accuracy, feed_dict={
                    m._X: batch[0], m.y: batch[1], m.keep_prob: 1.0,
                    m.batch_size: flags.batch_size})
                print('Iter%d, step %d, training accuracy %g' % (
                    mnist.train.epochs_completed, step, train_accuracy))
                run.log(step, 'accuracy/training', train_accuracy)  # for TensorBoard
            run.after_step(step, loss)  # show the progress, save, stop after Ctrl-C
        test_accuracy, y_pre = test(sess, m, mnist, flags.batch_size)
        print('test accuracy %g' % test_accuracy)
        # Export, result.json, curves.png, errors.png.
        run.end(test_accuracy, Errors(mnist, y_pre, run.names))


def test(sess, m, mnist, batch_size):
    """Return accuracy and y_pre of the test images, all in one `sess.run`."""
    import tensorflow as tf

    from training.device import is_out_of_memory
    from training.metrics import evaluate, fits_in_memory
    try:
        if fits_in_memory(m, mnist.test.num_examples):
            return sess.run([m.accuracy, m.y_pre], feed_dict={
                m._X: mnist.test.images, m.y: mnist.test.labels,
                m.keep_prob: 1.0, m.batch_size: mnist.test.images.shape[0]})
    except tf.errors.OpError as error:
        if not is_out_of_memory(error):
            raise
    # There is no memory for all at once: test a part at a time.
    accuracy, _, y_pre = evaluate(sess, m, mnist.test.images, mnist.test.labels,
                                  batch_size)
    return accuracy, y_pre


@reports_errors
def main(argv=None):
    """Train as the flags in argv say."""
    workers = join(sys.argv if argv is None else argv)
    flags = workers.on_rank0(lambda: parse_flags(argv))
    # Importing TensorFlow takes seconds: wrong flags were answered before.
    import_tensorflow()
    require('tqdm', 'matplotlib')
    from training.loop import Run
    try:
        with workers.quiet(), Run(flags, workers) as run:
            train(flags, run)
    except NoMirrorError as error:
        if flags.resume:
            raise
        raise UserError('%s with --data_dir, or train on the bundled digits '
                        'with --dataset digits' % error)


if __name__ == '__main__':
    status = main()
    gc.freeze()  # do not search all objects for garbage at exit: that takes 0.5 s
    sys.exit(status)
