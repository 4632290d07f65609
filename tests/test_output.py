"""stdout and stderr that are closed; what else there is, the scripts' tests show."""
import os
import subprocess
import sys

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
