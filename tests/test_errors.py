"""Streams whose encoding lacks letters, the processor, the import of TensorFlow.

The tests of the scripts show more.
"""
import contextlib
import io
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from training import cpu, errors


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


def test_a_processor_without_avx_is_refused_before_the_import(monkeypatch):
    assert cpu.problem() is None
    real = cpu.CPUID_1_ECX
    # and eax, ~AVX; ret
    monkeypatch.setattr(cpu, 'CPUID_1_ECX', real[:-1] + bytes.fromhex('25 ffffffef c3'))
    assert 'needs a processor with AVX' in cpu.problem()
    with pytest.raises(errors.UserError, match='AVX'):
        errors.import_tensorflow()
    monkeypatch.setattr(cpu.platform, 'machine', lambda: 'aarch64')
    assert 'this is aarch64: use another machine' in cpu.problem()


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
