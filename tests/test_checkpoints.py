import os
import types

import numpy as np
import pytest
import tensorflow as tf

from training.checkpoints import CheckpointHook, DivergenceHook
from training.errors import UserError
from training.run_directory import RunDirectory, checkpoint_steps


def flip(place):
    def change(path):
        body = bytearray(path.read_bytes())
        body[int(place * len(body))] ^= 4
        path.write_bytes(body)
    return change


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flags(**changes):
    return types.SimpleNamespace(**dict(dict(steps=9, save_every=2, resume=None),
                                        **changes))


@pytest.fixture
def saves(tmp_path):
    """A small model with checkpoints of steps 1 to 4, whose W is the step.

    Yields its session, its `CheckpointHook`, their folder, and W.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tf.Graph().as_default(), tf.Session() as sess:
        W = tf.get_variable('W', [1000])
        run_dir = tmp_path / 'saves'
        run_dir.mkdir()
        checkpoints = CheckpointHook(RunDirectory(str(run_dir)), flags(), sess)
        checkpoints.begin()
        for step in (1, 2, 3, 4):
            sess.run(W.assign([step] * 1000))
            checkpoints.save(step)
        sess.run(W.assign([0] * 1000))
        yield sess, checkpoints, run_dir, W


def test_the_last_three_checkpoints_are_kept(saves):
    sess, checkpoints, run_dir, W = saves
    names = ['model.ckpt-%d.%s' % (step, part) for step in (2, 3, 4)
             for part in ('data-00000-of-00001', 'index')]
    assert sorted(path.name for path in run_dir.iterdir()) == [
        'checkpoint', *names, 'model.ckpt.meta']
    state = tf.train.get_checkpoint_state(str(run_dir))
    assert state.model_checkpoint_path == str(run_dir / 'model.ckpt-4')
    assert list(state.all_model_checkpoint_paths) == [
        str(run_dir / ('model.ckpt-%d' % step)) for step in (2, 3, 4)]
    assert 'saves' not in (run_dir / 'checkpoint').read_text()  # it may be moved
    checkpoints.restore()
    assert set(sess.run(W)) == {4}


def test_the_graph_can_be_imported(saves):
    sess, _, run_dir, _ = saves
    with tf.Graph().as_default(), tf.Session() as other:
        saver = tf.train.import_meta_graph(str(run_dir / 'model.ckpt.meta'))
        saver.restore(other, tf.train.latest_checkpoint(str(run_dir)))
        assert set(other.run('W:0')) == {4}


def test_a_resumed_run_keeps_three_checkpoints_too(saves):
    sess, _, run_dir, W = saves
    checkpoints = CheckpointHook(RunDirectory(str(run_dir)), flags(resume='it'), sess)
    checkpoints.begin()
    assert set(sess.run(W)) == {0}
    checkpoints.save(5)
    assert checkpoint_steps(str(run_dir)) == [5, 4, 3]


def test_checkpoints_are_saved_at_the_interval_and_at_the_end(saves):
    _, checkpoints, run_dir, _ = saves
    for step in range(5, 10):
        checkpoints.after_step(step, 0.1)
    assert checkpoint_steps(str(run_dir)) == [9, 8, 6]


@pytest.mark.parametrize('part', ['data-00000-of-00001', 'index'])
@pytest.mark.parametrize('change', [
    cut, flip(0), flip(0.5), flip(0.99), os.remove,
    lambda path: path.write_bytes(b'')], ids=[
        'cut', 'flip first', 'flip middle', 'flip last', 'remove', 'empty'])
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(
        part, change, saves, capsys):
    sess, checkpoints, run_dir, W = saves
    change(run_dir / ('model.ckpt-4.' + part))
    checkpoints.restore()
    assert set(sess.run(W)) == {3}
    told = capsys.readouterr().err
    if change is not os.remove or part != 'index':
        assert told.startswith('warning: %s is damaged ('
                               % (run_dir / 'model.ckpt-4'))
    assert told.splitlines()[-1] == 'going on from step 3'


def test_a_save_that_fails_leaves_what_was_there(saves, monkeypatch, capsys):
    sess, checkpoints, run_dir, W = saves
    run = tf.Session.run

    def fail(self, fetches, *args, **kwargs):
        if 'save/' in str(fetches):
            raise tf.errors.ResourceExhaustedError(None, None, 'a disk is full')
        return run(self, fetches, *args, **kwargs)

    monkeypatch.setattr(tf.Session, 'run', fail)
    with pytest.raises(UserError) as error:
        checkpoints.save(5)
    assert str(error.value) == (
        'cannot write %s (a disk is full): fix that and go on with --resume %s'
        % (run_dir / 'model.ckpt-5', run_dir))
    monkeypatch.undo()
    checkpoints.restore()
    assert set(sess.run(W)) == {4}


@pytest.mark.parametrize('loss', [float('nan'), float('inf'), 101.0])
def test_a_bad_loss_stops_the_run_at_once(loss, saves):
    sess, _, run_dir, _ = saves
    divergence = DivergenceHook(RunDirectory(str(run_dir)))
    divergence.after_step(1, 99.0)
    with pytest.raises(UserError) as error:
        divergence.after_step(1, loss)
    assert str(error.value) == (
        'the training diverged at step 1, with a loss of %g: begin a new run with a '
        'lower --lr or a higher --keep_prob; %s has the checkpoint of step 4'
        % (loss, run_dir))


def test_bad_weights_stop_the_run_and_are_not_saved(saves):
    sess, checkpoints, run_dir, W = saves
    sess.run(W.assign([0.0] * 999 + [np.nan]))
    checkpoints.after_step(5, 0.1)  # nothing is saved at this step
    for step in (6, 9):
        with pytest.raises(UserError, match='with weights that are not finite: '):
            checkpoints.after_step(step, 0.1)
    assert checkpoint_steps(str(run_dir)) == [4, 3, 2]
