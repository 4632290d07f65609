"""The bundled digits."""
import os
import subprocess
import sys

import numpy as np
from conftest import ROOT, check

import data


def test_digits():
    digits = data.read_data_sets('no such folder', dataset='digits', seed=1)
    for part, n in zip(digits, (1257, 180, 360)):
        check(part, n)
        images = part.images.reshape(n, 28, 28)
        ink = images.sum((1, 2))
        rows = (images.sum(2) @ np.arange(28)) / ink
        columns = (images.sum(1) @ np.arange(28)) / ink
        # Laid by whole pixels, as MNIST's are.
        assert np.abs(rows - 14).max() < 0.51
        assert np.abs(columns - 14).max() < 0.51
        high, wide = (images.any(axis).sum(1) for axis in (2, 1))
        assert high.max() == 20 and wide.max() <= 20
    labels = np.concatenate([part.labels.argmax(1) for part in digits])
    # The counts that the UCI page gives for this part of its data set.
    assert np.bincount(labels).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.source.name == 'digits'
    again = data.read_data_sets('', dataset='digits', seed=2)
    np.testing.assert_array_equal(digits.test.images, again.test.images)
    np.testing.assert_array_equal(digits.test.labels, again.test.labels)


def test_digits_are_resampled_from_edge_to_edge():
    from sklearn.datasets import load_digits
    first = np.random.RandomState(0).permutation(1797)[1257 + 180]
    places = np.linspace(0, 7, 20)
    between = np.array([np.interp(places, range(8), row)
                        for row in np.eye(8)]).T
    box = between @ (load_digits().images[first] / 16) @ between.T
    image = data.read_data_sets('', dataset='digits').test.images[0].reshape(28, 28)
    assert min(np.abs(image[top:top + 20, left:left + 20] - box).max()
               for top in range(9) for left in range(9)) <= 0.5 / 255 + 1e-6
    np.testing.assert_allclose(image.sum(), box.sum(), rtol=1e-2)


def test_digits_without_scikit_learn_say_what_to_install():
    code = ('import sys; sys.modules["sklearn.datasets"] = None\n'
            'import data\n'
            'from training.errors import UserError\n'
            'try: data.read_data_sets("", dataset="digits")\n'
            'except UserError as error: print(error)')
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT,
                          stdout=subprocess.PIPE, universal_newlines=True)
    with open(os.path.join(ROOT, 'requirements', 'tests.in')) as f:
        pin, = [line.split()[0] for line in f
                if line.startswith('scikit-learn')]
    assert done.stdout == ('--dataset digits needs scikit-learn: pip install '
                           '%s\n' % pin)
