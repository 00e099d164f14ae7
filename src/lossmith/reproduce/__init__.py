"""Published findings about losses, reproduced: each declares its claims, and is judged by them.

Needs the extra ``lab``, and ``datasets`` for one of them.
"""

from lossmith.reproduce import (
    absolute_error,
    class_weights,
    engel_quantiles,
    focal_calibration,
    label_noise,
    no_difference,
    robust_losses,
    square_loss,
    uncertainty_weights,
)
from lossmith.reproduce.claims import Claim, Finding, Measured, Outcome, Reproduction, record, run

REPRODUCTIONS: dict[str, Reproduction] = {
    module.REPRODUCTION.name: module.REPRODUCTION
    for module in (
        square_loss,
        label_noise,
        absolute_error,
        focal_calibration,
        class_weights,
        robust_losses,
        engel_quantiles,
        uncertainty_weights,
        no_difference,
    )
}

__all__ = [
    "REPRODUCTIONS",
    "Claim",
    "Finding",
    "Measured",
    "Outcome",
    "Reproduction",
    "record",
    "run",
]
