"""Trains a multi-layer LSTM that reads an MNIST digit row by row.

With no flags this is the tutorial: two layers of 256 units, Adam at 1e-3,
dropout 0.5, 2000 steps of 128 images, and the 10,000 test images at the end.
Its transcript goes to stdout, and all else to stderr.
"""
import sys

from training import packages
from training.command_line import Parser, number, whole
from training.errors import UserError, reports_errors
from training.mnist_files import NoMirrorError
from training.workers import ALONE, join


def parse_flags(argv=None):
    """Returns the flags as an `argparse.Namespace`; see `Parser.parse`."""
    parser = Parser(__doc__)
    # The tutorial's hyper-parameters.
    parser.flag('--lr', 1e-3, "Adam's learning rate", type=number(
        float, 'a number above 0', lambda lr: 0 < lr < float('inf')))
    parser.flag('--batch_size', 128, 'images a step', type=whole(1))
    parser.flag('--keep_prob', 0.5, 'chance that dropout keeps a unit',
                type=number(float, 'a number above 0 and at most 1',
                            lambda p: 0 < p <= 1))
    parser.flag('--hidden_size', 256, 'units of an LSTM layer',
                type=whole(1, 8192))
    parser.flag('--layer_num', 2, 'LSTM layers', type=whole(1, 64))
    parser.flag('--steps', 2000, 'training steps', type=whole(1))
    # What it does not have.
    parser.flag('--lr_schedule', 'constant', 'linear has the learning rate rise '
                'for a tenth of the steps, and fall from there to 0',
                choices=('constant', 'linear'))
    parser.flag('--ema_decay', 0.0, 'test and keep a moving average of the '
                'weights, of which a step leaves this share as it was; 0 is '
                'off', type=number(float, 'a number from 0 to below 1',
                                   lambda d: 0 <= d < 1))
    parser.add_argument(
        '--dynamic_rnn', action='store_true',
        help='unroll with tf.nn.dynamic_rnn, not by hand (default: by hand)')
    parser.add_quick(lr=0.01, lr_schedule='linear', keep_prob=0.9, hidden_size=128,
                     steps=1500)
    parser.add_run_flags()
    return parser.parse(sys.argv[1:] if argv is None else argv)


def train(flags, workers=ALONE):
    """The tutorial's script: session, data, graph, loop, test.

    Args:
        flags: as `parse_flags` gives them.
        workers: the processes that train together.

    Raises:
        UserError: there is something that the user can repair.
        Stopped: the user stopped it.
    """
    # TensorFlow takes a second: a mistyped flag was answered before that.
    packages.require('tqdm', 'matplotlib', 'filelock')
    import tensorflow as tf

    import data
    import model
    from training.run import Run
    from training.schedule import learning_rate

    config = tf.ConfigProto()
    config.gpu_options.allow_growth = True
    with Run(flags, config, workers) as run, \
            tf.Graph().as_default(), tf.Session(config=config) as sess:
        with workers.rank0_first():  # where several train, one downloads
            mnist = data.read_data_sets(
                flags.data_dir, one_hot=True, dataset=flags.dataset,
                mirrors=run.mirrors, seed=run.seed)
        print(mnist.train.images.shape)
        run.open_directory()  # for what is kept
        tf.set_random_seed(run.graph_seed)

        # The tutorial's steps 1 and 2, and the loss, are in model.py.
        lr = learning_rate(flags.lr, flags.lr_schedule, flags.steps)
        m = model.build(lr, flags.hidden_size, flags.layer_num,
                        flags.dynamic_rnn, workers.distribute)
        watched = run.watch(m)  # what each step is looked at by

        # Its step 3: train and test.
        sess.run(tf.global_variables_initializer())
        for step in run.steps(sess, mnist):  # from 1, or where it was stopped
            batch = mnist.train.next_batch(flags.batch_size)
            images, labels = workers.shard(batch)  # all of it, if it trains alone
            _, seen = sess.run([m.train_op, watched], feed_dict={
                m.images: images, m.y: labels, m.keep_prob: flags.keep_prob,
                m.batch_size: len(images)})
            run.after_step(seen)  # saves, every --save_every steps
            if step % 200 == 0 or run.is_logged(step):
                train_accuracy = sess.run(m.accuracy, feed_dict={
                    m.images: batch[0], m.y: batch[1], m.keep_prob: 1.0,
                    m.batch_size: flags.batch_size})
                if step % 200 == 0:
                    run.print('Iter%d, step %d, training accuracy %g' % (
                        mnist.train.epochs_completed, step, train_accuracy))
                run.log(train_accuracy)  # for the bar and TensorBoard

        try:
            test_accuracy = sess.run(m.accuracy, feed_dict={
                m.images: mnist.test.images, m.y: mnist.test.labels,
                m.keep_prob: 1.0, m.batch_size: mnist.test.images.shape[0],
                **run.averages()})  # with --ema_decay, averages for weights
        except tf.errors.ResourceExhaustedError:  # of a large network
            test_accuracy = run.test_in_parts()
        print('test accuracy %g' % test_accuracy)
        run.finish(test_accuracy, model.build_export)


@reports_errors
def main(argv=None):
    """Trains as the flags in argv say."""
    workers = join('--horovod' in (sys.argv if argv is None else argv))
    flags = workers.on_rank0(lambda: parse_flags(argv))
    packages.import_tensorflow()
    try:
        with workers.quiet():
            train(flags, workers)
    except NoMirrorError as error:
        if flags.resume:
            raise
        raise UserError('%s with --data_dir, or train on the bundled digits '
                        'with --dataset digits' % error)


if __name__ == '__main__':
    sys.exit(main())
