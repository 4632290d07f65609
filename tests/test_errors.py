"""Streams whose encoding lacks letters. The tests of the scripts show more."""
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
