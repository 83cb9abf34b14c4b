"""See ``python tools/leakage.py --help``."""

from adadedup_mm.cli.leakage import main

if __name__ == '__main__':
    main()
