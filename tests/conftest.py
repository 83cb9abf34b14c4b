import pytest
from pathlib import Path
@pytest.fixture(scope='session')
def world():
    return Path('/tmp/mdw')
