"""See ``python tools/benchmark.py --help``."""

from adadedup_mm.cli.benchmark import main

if __name__ == '__main__':
    main()
