"""Say whether TensorFlow 1.15 can use a GPU of this machine, and what to do next.

    python tools/check_gpu.py    (make check-gpu)
"""
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from training import gpu  # noqa: E402
from training.environment import import_tensorflow  # noqa: E402
from training.errors import reports_errors  # noqa: E402


def describe(machine):
    """Return the diagnosis as a list of lines."""
    state, why, advice, _ = gpu.verdict(machine)
    return [
        'driver: %s' % (machine.driver or (
            'present, version unknown' if machine.libraries[gpu.DRIVER_LIBRARY]
            else 'none')),
        *(['CUDA of the driver: %d.%d' % machine.cuda] if machine.cuda else []),
        *['GPU %s: %s: %s, %s' % (
            machine.ids[each.gpu], gpu.details(machine.gpus[each.gpu]), *each[:2])
          for each in gpu.verdicts(machine)],
        *['%s: %s' % (name, path or 'not found')
          for name, path in machine.libraries.items()],
        'TensorFlow 1.15 %s use a GPU here: %s' % (
            'cannot' if state != 'usable' else 'may' if advice else 'can', why),
        *(['next: ' + advice] if advice else [])]


@reports_errors
def main(argv=None):
    """Print the diagnosis of this machine; return 1 if no GPU can be used."""
    import_tensorflow()
    machine = gpu.look(gpu.tensorflow_folder())
    print('\n'.join(describe(machine)))
    return 0 if gpu.verdict(machine).state == 'usable' else 1


if __name__ == '__main__':
    sys.exit(main())
