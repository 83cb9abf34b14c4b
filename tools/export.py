"""See ``python tools/export.py --help``."""

from adadedup_mm.cli.export import main

if __name__ == '__main__':
    main()
