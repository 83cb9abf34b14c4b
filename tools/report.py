"""See ``python tools/report.py --help``."""

from adadedup_mm.cli.report import main

if __name__ == '__main__':
    main()
