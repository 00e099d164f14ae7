"""What every test starts from."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same draws each time, whichever tests the process ran before."""
    torch.manual_seed(0)
