"""``python -m benchmarks``: every table."""

from benchmarks import torch_losses

torch_losses.main()
