"""Streams whose encoding lacks letters, an old Python.

The tests of the scripts show more.
"""
import contextlib
import io
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from training import errors


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


def test_python_3_6_gets_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'version_info', (3, 6, 9))
    assert errors.reports_errors(lambda argv: 0)() == 1
    assert capsys.readouterr().err == (
        'error: Python 3.7 is needed, and this is 3.6: use make train\n')


def test_a_stream_that_is_no_text_file():
    """As in a notebook, or a Python that is too old for TensorFlow anyway."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        assert errors.reports_errors(lambda argv: print('hi'))() == 0
    assert stream.getvalue() == 'hi\n'
