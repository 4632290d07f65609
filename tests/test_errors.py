"""Streams whose encoding lacks letters, and the import of TensorFlow.

The tests of the scripts show more.
"""
import os
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize('encoding, told', [
    ('ascii', b'\\u6570\n'), ('latin-1', b'\\u6570\n'),
    ('utf-8', '\u6570\n'.encode()), ('ascii:replace', b'?\n')])
def test_a_letter_that_the_encoding_lacks_is_printed_as_its_code(encoding, told):
    code = ('from training.errors import reports_errors\n'
            'reports_errors(lambda argv: print("\\u6570"))()')
    done = subprocess.run(
        [sys.executable, '-c', code], stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=ROOT, PYTHONIOENCODING=encoding))
    assert (done.returncode, done.stdout) == (0, told)


@pytest.mark.parametrize('given, found', [({}, str(2 ** 32)),
                                          ({'CUDA_CACHE_MAXSIZE': '9'}, '9')])
def test_the_cache_of_the_driver_is_large_enough_for_tensorflow(given, found):
    code = ('import os; from training.errors import import_tensorflow as f; f()\n'
            'print(os.environ["CUDA_CACHE_MAXSIZE"])')
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          cwd=ROOT, env=dict(os.environ, **given))
    assert done.stdout.decode() == found + '\n'
