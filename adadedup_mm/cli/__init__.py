"""The command line tools; ``tools/*.py`` call their ``main``."""
