"""See ``python tools/train.py --help``."""

from adadedup_mm.cli.train import main

if __name__ == '__main__':
    main()
