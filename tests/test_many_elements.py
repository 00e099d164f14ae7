"""More elements than 32 bits count. Other losses need more temporaries than machines hold."""

import os

import pytest
import torch

import lossmith as lm

MANY = 2**31 + 8


@pytest.mark.slow
@pytest.mark.skipif(
    os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") < 20 * 2**30,
    reason="each loss needs a temporary of 8.6 GB",
)
def test_mean_over_more_elements_than_32_bits_count() -> None:
    ones, zeros = torch.ones(1).expand(MANY), torch.zeros(1).expand(MANY)
    for loss in (lm.mse_loss, lm.l1_loss, lm.huber_loss, lm.smooth_l1_loss):  # one at a time
        assert loss(ones, zeros).item() == loss(ones[:1], zeros[:1]).item()
