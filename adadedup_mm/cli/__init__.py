"""The command line tools; ``tools/*.py`` call their ``main``."""

import warnings

# mmengine imports pkg_resources, which warns about itself once per module, on every start.
warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
