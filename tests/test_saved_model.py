import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import build, call

import data
from training import saved_model
from training.errors import UserError
from training.metrics import read_scalars

SCRIPT = 'train_lstm_mnist.py'


def test_the_export_has_the_weights_and_the_accuracy_of_the_last_step(digits_run):
    result = json.loads((digits_run / 'result.json').read_text())
    checkpoint = tf.train.load_checkpoint(str(digits_run))
    test = data.read_data_sets('', dataset='digits').test
    with tf.Graph().as_default(), tf.Session() as sess:
        signatures = tf.saved_model.load(
            sess, ['serve'], str(digits_run / 'saved_model')).signature_def
        for variable in tf.global_variables():
            np.testing.assert_array_equal(
                sess.run(variable), checkpoint.get_tensor(variable.op.name))
        default, rows = signatures['serving_default'], signatures['rows']
        probabilities, classes, by_row = sess.run(
            [default.outputs['probabilities'].name,
             default.outputs['classes'].name,
             rows.outputs['probabilities'].name],
            {default.inputs['images'].name: test.images})
    assert by_row.shape == (360, 28, 10)
    np.testing.assert_allclose(by_row.sum(2), 1, rtol=1e-5)
    np.testing.assert_array_equal(by_row[:, -1], probabilities)
    np.testing.assert_array_equal(probabilities.argmax(1), classes)
    assert np.mean(classes == test.labels.argmax(1)) == pytest.approx(
        result['test_accuracy'], abs=1e-6)
    assert result['test_accuracy'] > 0.8
    with tf.Graph().as_default(), tf.Session() as sess:
        m = build(hidden_size=32, dynamic_rnn=True)
        tf.train.Saver().restore(sess,
                                 tf.train.latest_checkpoint(str(digits_run)))
        validation = data.read_data_sets('', dataset='digits').validation
        assert sess.run([m.accuracy, m.cross_entropy], {
            m._X: validation.images, m.y: validation.labels, m.keep_prob: 1,
            m.batch_size: validation.num_examples}) == (
                pytest.approx([
                    result['validation_accuracy'],
                    read_scalars(str(digits_run))[
                        'loss/validation'][500]], abs=1e-6))


def test_saved_model_cli(digits_run, tmp_path):
    test = data.read_data_sets('', dataset='digits').test
    np.save(str(tmp_path / 'images.npy'), test.images[:20])

    def cli(command, *args):
        return subprocess.run(
            [sys.executable, '-m', 'tensorflow.python.tools.saved_model_cli',
             command, '--dir', str(digits_run / 'saved_model'), *args],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
            universal_newlines=True).stdout

    shown = ' '.join(cli('show', '--all').split())
    for signature, what in (
            ('serving_default', "inputs['images'] tensor_info: dtype: DT_FLOAT "
             'shape: (-1, 784)'),
            ('serving_default', "outputs['probabilities'] tensor_info: dtype: "
             'DT_FLOAT shape: (-1, 10)'),
            ('serving_default', "outputs['classes'] tensor_info: dtype: "
             'DT_INT64 shape: (-1)'),
            ('rows', "outputs['probabilities'] tensor_info: dtype: DT_FLOAT "
             'shape: (-1, 28, 10)')):
        part = shown.split("signature_def['%s']" % signature)[1]
        assert what in part.split('signature_def')[0]
    cli('run', '--tag_set', 'serve', '--signature_def', 'serving_default',
        '--inputs', 'images=%s' % (tmp_path / 'images.npy'), '--outdir',
        str(tmp_path))
    classes = np.load(str(tmp_path / 'classes.npy'))
    assert np.mean(classes == test.labels[:20].argmax(1)) > 0.7
    np.testing.assert_array_equal(
        np.load(str(tmp_path / 'probabilities.npy')).argmax(1), classes)


def test_a_saved_model_that_is_gone_is_made_again(whole_run, tmp_path):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))

    def files():
        return {str(path.relative_to(run_dir)): path.stat().st_size
                for path in (run_dir / 'saved_model').glob('**/*')}

    before = files()
    assert len(before) >= 4
    shutil.rmtree(str(run_dir / 'saved_model'))
    assert call(SCRIPT, '--resume', 'run', cwd=tmp_path).returncode == 0
    assert files() == before


def test_an_export_that_fails_leaves_the_old_one(whole_run, tmp_path, monkeypatch):
    run_dir = tmp_path / 'run'
    shutil.copytree(str(whole_run), str(run_dir))
    before = (run_dir / 'saved_model' / 'saved_model.pb').read_bytes()

    def full(*args):
        raise tf.errors.ResourceExhaustedError(None, None, 'the disk is full')

    monkeypatch.setattr(tf.saved_model.Builder, 'save', full)
    done = call(SCRIPT, '--resume', 'run', '--steps', 121, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (1, [
        'error: cannot write run/saved_model (the disk is full): fix that and '
        'go on with --resume run'])
    assert (run_dir / 'saved_model' / 'saved_model.pb').read_bytes() == before
    assert not list(run_dir.glob('saving-*'))


def test_what_the_user_keeps_in_it_stays(whole_run, tmp_path):
    shutil.copytree(str(whole_run), str(tmp_path / 'run'))
    place = tmp_path / 'run' / 'saved_model'
    (place / 'notes.txt').write_text('mine')
    (place / 'assets.extra').mkdir()
    (place / 'assets.extra' / 'warmup').write_text('mine, too')
    (place / 'variables' / 'copy').write_text('and this')
    before = (place / 'variables' / 'variables.data-00000-of-00001').read_bytes()
    assert call(SCRIPT, '--resume', 'run', '--steps', 121, cwd=tmp_path).returncode == 0
    assert (place / 'variables' / 'variables.data-00000-of-00001'
            ).read_bytes() != before
    for name in ('notes.txt', 'assets.extra/warmup', 'variables/copy'):
        assert (place / name).exists()
    assert saved_model.Network(str(tmp_path / 'run')).shape == (28, 28)


@pytest.mark.parametrize('error', [errno.EACCES, errno.EXDEV, errno.EPERM])
def test_a_file_system_that_renames_no_folders(error, whole_run, tmp_path, monkeypatch):
    """As SMB's may be."""
    def refusing(rename):
        def files_only(source, target, **kwargs):
            if os.path.isdir(source):
                raise OSError(error, os.strerror(error), source)
            return rename(source, target, **kwargs)
        return files_only

    shutil.copytree(str(whole_run), str(tmp_path / 'run'))
    for name in ('rename', 'replace'):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    done = call(SCRIPT, '--resume', 'run', '--steps', 121, cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (0, [])
    assert saved_model.Network(str(tmp_path / 'run')).shape == (28, 28)
    assert [name for name in os.listdir(str(tmp_path / 'run')) if 'train_lstm' in name
            ] == []


def test_an_export_that_fails_midway_does_not_load(whole_run, tmp_path, monkeypatch):
    shutil.copytree(str(whole_run), str(tmp_path / 'run'))
    shutil.rmtree(str(tmp_path / 'run' / 'saved_model'))
    replaced = []

    def interrupted(source, target, replace=os.replace):
        if 'saved_model' in target:
            replaced.append(os.path.basename(target))
        if replaced[1:]:
            raise OSError(5, 'Input/output error')
        replace(source, target)

    monkeypatch.setattr(os, 'replace', interrupted)
    done = call(SCRIPT, '--resume', 'run', cwd=tmp_path)
    assert (done.returncode, done.error_lines) == (1, [
        'error: cannot write run/saved_model (Input/output error): fix that and go on '
        'with --resume run'])
    monkeypatch.undo()
    with pytest.raises(UserError, match='is damaged'):
        saved_model.Network(str(tmp_path / 'run'))
    (tmp_path / 'run' / 'result.json').unlink()  # that of the copied run
    assert call(SCRIPT, '--resume', 'run', cwd=tmp_path).returncode == 0
    assert saved_model.Network(str(tmp_path / 'run')).shape == (28, 28)
