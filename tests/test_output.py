"""stdout and stderr that are closed, or lack letters; the scripts' tests show more."""
import os
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
from training import output
with output.guarded():
    print('nobody reads this')
    with open('told', 'w') as f:
        f.write(str(f.fileno()))
"""


def test_no_file_takes_the_place_of_what_is_closed(tmp_path):
    done = subprocess.run(
        ['sh', '-c', 'exec "$@" <&- >&- 2>&-', 'sh', sys.executable, '-c', CODE],
        cwd=str(tmp_path), env=dict(os.environ, PYTHONPATH=ROOT))
    assert done.returncode == 0
    assert int((tmp_path / 'told').read_text()) > 2


@pytest.mark.parametrize('encoding, told', [
    ('ascii', b'\\u6570\n'), ('latin-1', b'\\u6570\n'),
    ('utf-8', '\u6570\n'.encode()), ('ascii:replace', b'?\n')])
def test_a_name_that_the_locale_has_no_letters_for(encoding, told):
    code = 'from training import output\nwith output.guarded(): print("\\u6570")'
    done = subprocess.run(
        [sys.executable, '-c', code], stdout=subprocess.PIPE,
        env=dict(os.environ, PYTHONPATH=ROOT, PYTHONIOENCODING=encoding))
    assert (done.returncode, done.stdout) == (0, told)
