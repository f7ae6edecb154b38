"""What the tests of this folder share."""

import pytest


@pytest.fixture(autouse=True)
def quick(no_sheets: None) -> None:
    """Stores without their contact sheets."""
