"""A loss of your own, as a function and as a Module, under the whole contract."""

import torch
from torch import Tensor

import lossmith as lm
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.reduction import Reduction


@lm.loss(
    lm.Card(
        task="regression",
        coupling="element",
        formula=r"\operatorname{arsinh}^2(r / s)",
        signatures=lm.elementwise(input=REAL, target=REAL),
        options={"scale": POSITIVE},
        variants=({"scale": 0.5}, {"scale": 4.0}),
        exact=lambda mp, x, y, scale=1.0: mp.asinh((x - y) / mp.mpf(scale)) ** 2,
        points=(
            lm.Point(0.0, 0.0, value=0.0, gradient=0.0),  # by hand
            lm.Point(
                1.1752011936438014, 0.0, value=1.0, gradient=1.2961085475
            ),  # r = sinh 1, 2 / cosh 1
            lm.Point(0.0, 1.1752011936438014, value=1.0, gradient=-1.2961085475),  # mirrored
        ),
        symmetric=True,
        zero_at_target=True,
        robust=True,
        use_when="errors spread over many orders of magnitude",
        avoid_when="the sizes of large errors matter",
        source="an example, 2026",
    )
)
def arsinh_loss(
    input: Tensor,
    target: Tensor,
    *,
    scale: float = 1.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Squared near the target, squared logarithm far away.

    Args:
        input: Model output, ``(*)``, floating point, any real value.
        target: Observed values, ``(*)``, same shape as ``input``.
        scale: Error size where the square turns into a logarithm, ``> 0``.
        sample_weight: Weight of each element, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If the shapes differ, ``scale <= 0``, or ``reduction`` is unknown.

    Example:
        >>> import torch
        >>> arsinh_loss(torch.tensor([1.0]), torch.tensor([0.0]))
        tensor(0.7768)
    """
    return torch.asinh((input - target) / scale) ** 2


class ArsinhLoss(lm.Loss):
    """Module form of :func:`arsinh_loss`: its fields, and nothing else."""

    scale: float = 1.0
    function = staticmethod(arsinh_loss)


def main() -> int:
    """Run the contract and train a line through data with gross errors."""
    outcomes = lm.check_loss(arsinh_loss)
    print(f"{ArsinhLoss(scale=2.0)!r} passes {len(outcomes)} checks")

    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 100)
    y = 3 * x + 0.1 * torch.randn(100)
    y[::10] += 50
    for loss in (lm.MSELoss(), ArsinhLoss(scale=0.2)):
        slope = torch.zeros(2, requires_grad=True)
        optimiser = torch.optim.Adam([slope], lr=0.05)
        for _ in range(500):
            optimiser.zero_grad()
            loss(slope[0] * x + slope[1], y).backward()
            optimiser.step()
        print(f"{loss.card.name}: slope {slope[0].item():.2f}, true slope 3")
    return len(outcomes)


if __name__ == "__main__":
    main()
