"""``python -m benchmarks``: every table."""

from benchmarks import one_pass, torch_losses

torch_losses.main()
one_pass.main()
