import os
import socket

import pytest
import tensorflow as tf

from training.checkpoints import Checkpoints
from training.errors import UserError
from training.run_directory import RunDirectory


def flip(place):
    def change(path):
        body = bytearray(path.read_bytes())
        body[int(place * len(body))] ^= 4
        path.write_bytes(body)
    return change


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.fixture
def saves(tmp_path):
    """A little model with checkpoints of steps 1 to 4, whose W is the step.

    Gives its session, its `Checkpoints`, their folder, and W.
    """
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
    with tf.Graph().as_default(), tf.Session() as sess:
        W = tf.get_variable('W', [1000])
        run_dir = tmp_path / 'saves'
        run_dir.mkdir()
        checkpoints = Checkpoints(RunDirectory(str(run_dir)), sess)
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
        '.lock', 'checkpoint', *names]
    state = tf.train.get_checkpoint_state(str(run_dir))
    assert state.model_checkpoint_path == str(run_dir / 'model.ckpt-4')
    assert list(state.all_model_checkpoint_paths) == [
        str(run_dir / ('model.ckpt-%d' % step)) for step in (2, 3, 4)]
    assert checkpoints.restore(9) == 4
    assert set(sess.run(W)) == {4}


def test_a_checkpoint_is_on_the_disk_before_it_counts(saves, monkeypatch):
    sess, checkpoints, run_dir, W = saves
    done = []

    def look(name, of):
        function = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args: (
            done.append((name, os.path.basename(of(*args)))), function(*args)))

    look('fsync', lambda descriptor: os.readlink('/proc/self/fd/%d'
                                                 % descriptor))
    look('replace', lambda source, target: target)
    # Left by a process that died here, and one that saves on another machine.
    left = run_dir / ('saving-%s-0' % socket.gethostname())
    others = run_dir / 'saving-elsewhere-0'
    for folder in (left, others):
        folder.mkdir()
        (folder / 'model.ckpt-3.index').write_text('half of it')
    checkpoints.save(5)
    assert others.exists() and not left.exists()
    data_file, index = ('model.ckpt-5.' + part for part in
                        ('data-00000-of-00001', 'index'))
    assert done[:5] == [('fsync', data_file), ('replace', data_file),
                        ('fsync', index), ('replace', index),
                        ('fsync', 'saves')]
    assert checkpoints.restore(9) == 5


@pytest.mark.parametrize('part', ['data-00000-of-00001', 'index'])
@pytest.mark.parametrize('change', [
    cut, flip(0), flip(0.5), flip(0.99), os.remove,
    lambda path: path.write_bytes(b'')], ids=[
        'cut', 'flip first', 'flip middle', 'flip last', 'remove', 'empty'])
def test_an_older_checkpoint_takes_the_place_of_a_damaged_one(
        part, change, saves, capsys):
    sess, checkpoints, run_dir, W = saves
    change(run_dir / ('model.ckpt-4.' + part))
    assert checkpoints.restore(9) == 3
    assert set(sess.run(W)) == {3}
    told = capsys.readouterr().err
    if change is not os.remove or part != 'index':
        assert told.startswith('warning: %s is damaged ('
                               % (run_dir / 'model.ckpt-4'))
    assert told.splitlines()[-1] == 'going on from step 3'


@pytest.mark.parametrize('times', range(4))
def test_a_save_that_fails_leaves_what_was_there(times, saves, monkeypatch,
                                                 capsys):
    sess, checkpoints, run_dir, W = saves
    replace, left = os.replace, [times]

    def fail(source, target):
        if not left[0]:
            raise OSError(28, 'No space left on device')
        left[0] -= 1
        replace(source, target)

    monkeypatch.setattr(os, 'replace', fail)
    if times == 3:  # two of the checkpoint, one of the file `checkpoint`
        checkpoints.save(5)
    else:
        with pytest.raises(UserError) as error:
            checkpoints.save(5)
        assert 'No space left on device' in str(error.value)
    assert not list(run_dir.glob('saving-*'))
    assert checkpoints.restore(9) == (
        4 if times < 2 else 5)
    assert 'damaged' not in capsys.readouterr().err
