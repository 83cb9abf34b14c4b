"""See ``python tools/make_minidrive.py --help``."""

from adadedup_mm.cli.make_minidrive import main

if __name__ == '__main__':
    main()
