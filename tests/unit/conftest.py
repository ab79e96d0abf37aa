"""What all unit tests share.

Authors
 * The speechbrain_kmdanet developers 2026
"""

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Lets a test draw the same numbers alone and among others."""
    torch.manual_seed(0)
