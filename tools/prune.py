"""See ``python tools/prune.py --help``."""

from adadedup_mm.cli.prune import main

if __name__ == '__main__':
    main()
