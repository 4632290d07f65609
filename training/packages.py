"""The packages that a script needs: there, and of the right version."""
import importlib.util
import os

from training.errors import UserError

# What the advice says to install. requirements.txt and requirements/tests.in
# pin the same versions.
VERSIONS = {'filelock': '3.12.2', 'matplotlib': '3.5.3', 'Pillow': '9.5.0',
            'scikit-learn': '1.0.2', 'tqdm': '4.67.1'}


def require(*names):
    """Looks for packages without importing them.

    Args:
        names: keys of `VERSIONS` that are also the modules' names.

    Raises:
        UserError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise missing(name)


def missing(name):
    """Returns the `UserError` for a package, a key of `VERSIONS`."""
    return UserError('%s is missing: pip install %s==%s'
                     % (name, name, VERSIONS[name]))


def import_tensorflow():
    """Imports TensorFlow, with all but its errors silenced.

    Raises:
        UserError: it can't be imported or is not 1.15.
    """
    # 2 leaves the C++ side's errors and silences its warnings.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except Exception as error:  # a protobuf too new raises a TypeError
        found = '%s: %s' % (type(error).__name__, str(error).split('\n')[0])
    else:
        found = 'this is ' + tf.__version__
    if not found.startswith('this is 1.15.'):
        raise UserError(
            'TensorFlow 1.15 is needed (%s): in a Python 3.7, pip install -r '
            'requirements.txt, or use make train' % found)
    tf.compat.v1.logging.set_verbosity(tf.compat.v1.logging.ERROR)
