"""See ``python tools/probe.py --help``."""

from adadedup_mm.cli.probe import main

if __name__ == '__main__':
    main()
