"""Penalties on parameters: L1 (lasso), L2 (ridge), both (elastic net), over a whole model."""

from collections.abc import Iterable

from torch import Tensor, nn

from lossmith.core.card import Card, Point
from lossmith.core.checks import fail, fail_type
from lossmith.core.domain import REAL, UNIT
from lossmith.core.loss import loss
from lossmith.core.module import Loss, Sum
from lossmith.core.reduction import Reduction
from lossmith.core.signature import elementwise


@loss(
    Card(
        task="penalty",
        coupling="element",
        formula=r"|w|",
        signatures=elementwise(input=REAL),
        exact=lambda mp, w: abs(w),
        points=(
            Point(-2.0, value=2.0, gradient=-1.0),  # by hand
            Point(0.0, value=0.0, gradient=0.0),  # the subgradient in the middle
            Point(1e18, value=1e18, gradient=1.0),  # by hand
        ),
        kinks=(0.0,),
        convex=True,
        gradient_bound=1.0,
        aliases=("lasso",),
        use_when="few parameters should matter, and the others go to 0",
        avoid_when="exact zeros are needed: gradient steps only hover around them",
        source="Tibshirani 1996, doi:10.1111/j.2517-6161.1996.tb02080.x",
    )
)
def l1_penalty_loss(
    input: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute value of each parameter.

    Pulls every parameter to 0 with the same force, however small it is. The lasso of textbooks is
    the sum: ``reduction="sum"``. For all parameters of a model see :class:`ParameterPenalty`.

    Args:
        input: Parameters, ``(*)``, floating point, any real value.
        sample_weight: Weight of each parameter, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.l1_penalty_loss(torch.tensor([-2.0, 0.5]), reduction="sum")
        tensor(2.5000)
    """
    return input.abs()


class L1PenaltyLoss(Loss):
    """Module form of :func:`l1_penalty_loss`."""

    function = staticmethod(l1_penalty_loss)


@loss(
    Card(
        task="penalty",
        coupling="element",
        formula=r"w^2",
        signatures=elementwise(input=REAL),
        exact=lambda mp, w: w**2,
        points=(
            Point(-2.0, value=4.0, gradient=-4.0),  # by hand
            Point(0.5, value=0.25, gradient=1.0),  # by hand
            Point(1e15, value=1e30, gradient=2e15),  # by hand
        ),
        convex=True,
        aliases=("ridge",),
        use_when="parameters should stay small, all of them a little",
        avoid_when="the optimizer decays weights itself: it would count twice",
        source="Hoerl & Kennard 1970, doi:10.1080/00401706.1970.10488634",
    )
)
def l2_penalty_loss(
    input: Tensor,
    *,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Square of each parameter.

    Its gradient is ``2 w``: in SGD and Adam, ``weight_decay=d`` equals adding ``d / 2`` times the
    sum of this loss. AdamW's decay is applied outside the gradient and equals no penalty.

    Args:
        input: Parameters, ``(*)``, floating point, any real value.
        sample_weight: Weight of each parameter, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.l2_penalty_loss(torch.tensor([-2.0, 0.5]), reduction="sum")
        tensor(4.2500)
    """
    return input * input


class L2PenaltyLoss(Loss):
    """Module form of :func:`l2_penalty_loss`."""

    function = staticmethod(l2_penalty_loss)


@loss(
    Card(
        task="penalty",
        coupling="element",
        formula=r"\rho |w| + \tfrac{1 - \rho}{2} w^2",
        signatures=elementwise(input=REAL),
        options={"l1_ratio": UNIT},
        variants=({"l1_ratio": 0.0}, {"l1_ratio": 0.1}, {"l1_ratio": 1.0}),
        exact=lambda mp, w, l1_ratio=0.5: (
            mp.mpf(l1_ratio) * abs(w) + (1 - mp.mpf(l1_ratio)) / 2 * w**2
        ),
        points=(
            Point(-2.0, value=2.0, gradient=-1.5),  # by hand: 1 + 1, slope -0.5 - 1
            Point(0.0, value=0.0, gradient=0.0),  # the subgradient in the middle
            Point(-2.0, value=2.0, gradient=-2.0, l1_ratio=0.0),  # half the square
            Point(-2.0, value=2.0, gradient=-1.0, l1_ratio=1.0),  # the absolute value
        ),
        kinks=(0.0,),
        convex=True,
        aliases=("elastic_net",),
        use_when="few parameters should matter, and correlated ones should share the weight",
        avoid_when="one of the two penalties is enough",
        source="Zou & Hastie 2005, doi:10.1111/j.1467-9868.2005.00503.x",
    )
)
def elastic_net_penalty_loss(
    input: Tensor,
    *,
    l1_ratio: float = 0.5,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Absolute value and half the square of each parameter, mixed.

    Half the square, as in scikit-learn and glmnet: ``l1_ratio=0`` is half the L2 penalty.

    Args:
        input: Parameters, ``(*)``, floating point, any real value.
        l1_ratio: Share of the absolute value, in [0, 1].
        sample_weight: Weight of each parameter, ``(*)``, ``>= 0``; 0 means absent.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(*)`` for ``reduction="none"``; dtype of ``input``.

    Raises:
        ValueError: If ``l1_ratio`` is outside [0, 1] or ``reduction`` is unknown.
        TypeError: If ``input`` is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> lm.elastic_net_penalty_loss(torch.tensor([-2.0, 0.5]), reduction="sum")
        tensor(2.3125)
    """
    return l1_ratio * input.abs() + 0.5 * (1 - l1_ratio) * input * input


class ElasticNetPenaltyLoss(Loss):
    """Module form of :func:`elastic_net_penalty_loss`."""

    l1_ratio: float = 0.5
    function = staticmethod(elastic_net_penalty_loss)


class ParameterPenalty(Loss):
    """A penalty on the parameters of a model, to be added to the loss of its predictions.

    The tensors of the call are not looked at. With ``reduction="mean"`` the penalty is averaged
    over all parameters together. The model is not a part of this Module: its parameters are
    neither listed nor saved twice.

    Args:
        parameters: A Module, whose parameters are looked up at each call; or several Modules and
            tensors, for example all weights but no bias.
        penalty: How each of them is penalised, for example ``L1PenaltyLoss(reduction="sum")``.

    Raises:
        TypeError: If ``penalty`` is not a penalty Module, or ``parameters`` holds something else
            than Modules and tensors.
        ValueError: If there are no parameters, or the penalty's reduction is ``"none"``.

    Example:
        >>> import torch, lossmith as lm
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> _ = torch.nn.init.constant_(model.weight, -3.0)
        >>> lasso = lm.ParameterPenalty(model, lm.L1PenaltyLoss(reduction="sum"))
        >>> total = lm.MSELoss() + 0.01 * lasso
        >>> total(model(torch.tensor([[1.0]])), torch.tensor([[-1.0]])).item()
        4.03...
    """

    def __init__(self, parameters: nn.Module | Iterable[nn.Module | Tensor], penalty: Loss) -> None:
        nn.Module.__init__(self)
        if not isinstance(penalty, Loss) or isinstance(penalty, Sum):
            fail_type("penalty", "be a penalty such as L1PenaltyLoss()", penalty)
        if penalty.card.tasks != ("penalty",):
            fail_type("penalty", "be a penalty such as L1PenaltyLoss()", penalty)
        if penalty.reduction == "none":
            fail("penalty.reduction", "be 'mean' or 'sum'", penalty.reduction)
        self.penalty = penalty
        # inside a tuple a Module is not registered as a child
        self._source = (parameters,) if isinstance(parameters, nn.Module) else tuple(parameters)
        for part in self._source:
            if not isinstance(part, (Tensor, nn.Module)):
                fail_type("parameters", "be Modules or tensors", part)
        if not self._tensors():
            fail("parameters", "hold at least one tensor", parameters)

    def _tensors(self) -> list[Tensor]:
        tensors: list[Tensor] = []
        for part in self._source:
            tensors.extend([part] if isinstance(part, Tensor) else part.parameters())
        return tensors

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The penalty; the arguments, which the other terms of a sum need, play no part."""
        parts = self._tensors()
        count = sum(part.numel() for part in parts)
        averaged = self.penalty.reduction == "mean"
        total = parts[0].new_zeros(())
        for part in parts:
            share = part.numel() / count if averaged else 1.0
            total = total + share * self.penalty(part)
        return total

    def extra_repr(self) -> str:
        """Nothing of its own: the penalty is shown as a child."""
        return ""

    @property
    def card(self) -> Card:
        """The claims of the penalty."""
        return self.penalty.card
