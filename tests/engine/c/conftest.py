"""What is compiled here is compiled as users have it."""

import pytest


@pytest.fixture(autouse=True)
def _optimised(optimised):
    pass
