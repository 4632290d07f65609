"""The processor, the import of TensorFlow."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from training import environment
from training.errors import UserError


@pytest.mark.parametrize('given, found', [({}, str(2 ** 32)),
                                          ({'CUDA_CACHE_MAXSIZE': '9'}, '9')])
def test_the_cache_of_the_driver_is_large_enough_for_tensorflow(given, found):
    code = ('import os; from training.environment import import_tensorflow as f; f()\n'
            'print(os.environ["CUDA_CACHE_MAXSIZE"])')
    done = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE,
                          cwd=ROOT, env=dict(os.environ, **given))
    assert done.stdout.decode() == found + '\n'


def test_a_processor_without_avx_is_refused_before_the_import(monkeypatch):
    assert environment.processor_problem() is None
    real = environment.CPUID_1_ECX
    # and eax, ~AVX; ret
    monkeypatch.setattr(environment, 'CPUID_1_ECX',
                        real[:-1] + bytes.fromhex('25 ffffffef c3'))
    assert 'needs a processor with AVX' in environment.processor_problem()
    with pytest.raises(UserError, match='AVX'):
        environment.import_tensorflow()
    monkeypatch.setattr(environment.platform, 'machine', lambda: 'aarch64')
    assert 'this is aarch64: use another machine' in environment.processor_problem()
