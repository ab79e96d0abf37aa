"""What all unit tests share."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Lets a test draw the same numbers alone and among others."""
    torch.manual_seed(0)
