"""`python -m tornado_ds`, and the installed `tornado-ds`: hands over to the commands."""

import gc
import sys


def main() -> None:
    """Run the command line and exit."""
    try:
        code = _run()
    except KeyboardInterrupt:
        # While all was still being imported; later, commands see to it themselves.
        code = 130
    sys.exit(code)


def _run() -> int:
    # What importing makes is there to stay: a collector that goes through it again and again
    # takes a tenth of the start, and would go on with every module that is loaded later.
    gc.disable()
    from tornado_ds.cli import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:])


if __name__ == "__main__":
    main()
