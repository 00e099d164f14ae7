"""SigLIP: every image with every text, each pair a yes or no of its own."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lossmith.core.card import Card
from lossmith.core.domain import POSITIVE, REAL
from lossmith.core.loss import loss
from lossmith.core.module import Loss
from lossmith.core.numerics import alike, softplus, unit
from lossmith.core.reduction import Reduction
from lossmith.core.signature import Signature
from lossmith.engines.matched import Sigmoid
from lossmith.engines.pairs import Pairs, Sides


def _image_and_text(
    image: Tensor, text: Tensor, *, temperature: float | Tensor, bias: float | Tensor, **_: Any
) -> Sides:
    image, text = alike(image, text)
    return Sides(unit(image), unit(text), temperature, bias)


def _own_text(image: Tensor, text: Tensor, *, sample_weight: Tensor | None, **_: Any) -> Sigmoid:
    place = torch.arange(len(image), device=image.device)
    absent = None if sample_weight is None else sample_weight == 0
    return Sigmoid(place, absent, image.dtype)


@loss(
    Card(
        task="embedding",
        coupling="pairs",
        formula=r"-\sum_j \log \sigma\big(z_{ij}\, (\cos(x_i, y_j) / \tau + b)\big),"
        r"\quad z_{ij} = \begin{cases} 1 & i = j\\ -1 & i \ne j\end{cases}",
        signatures=(Signature(image=REAL("N D"), text=REAL("N D"), out="N"),),
        options={"temperature": POSITIVE, "bias": REAL},
        variants=({"temperature": 1.0, "bias": 0.0}, {"temperature": 0.5, "bias": -2.0}),
        elicits="log-odds of being a pair",
        aliases=("siglip", "sigmoid_contrastive_loss"),
        use_when="matched pairs, in batches too small or too scattered for a softmax over them",
        avoid_when="temperature and bias are held fixed at values that were not tuned",
        source="Zhai, Mustafa, Kolesnikov and Beyer 2023, arXiv:2303.15343",
    ),
    engine=Pairs(_image_and_text, _own_text, learnable=("temperature", "bias")),
)
def siglip_loss(
    image: Tensor,
    text: Tensor,
    *,
    temperature: float | Tensor = 0.1,
    bias: float | Tensor = -10.0,
    sample_weight: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """Logistic loss of each image against each text: 1 on the diagonal, 0 elsewhere.

    The value of image i is the sum over the texts, so the mean over images is the paper's. The
    temperature is plain and divides the cosine: the paper's factor t is its inverse.

    Args:
        image: Embeddings, ``(N, D)``, floating point; they are brought to length 1 here.
        text: Embeddings of the partners, ``(N, D)``.
        temperature: Divides the cosine, ``> 0``; a tensor with one element may learn.
        bias: Added to each score; about minus the logarithm of the batch size at the start, so
            that the many negatives do not pull at once. A tensor with one element may learn.
        sample_weight: Weight of each pair, ``(N)``, ``>= 0``; 0 means absent, as a negative too.
        reduction: ``"mean"`` (divides by the sum of the weights), ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(N)`` for ``reduction="none"``, in nats; dtype of ``image``.

    Raises:
        ValueError: If the shapes differ, ``temperature <= 0``, or ``reduction`` is unknown.
        TypeError: If a tensor is not floating point.

    Example:
        >>> import torch, lossmith as lm
        >>> image, text = torch.eye(2), torch.tensor([[2.0, 0.0], [3.0, 4.0]])
        >>> lm.siglip_loss(image, text, temperature=1.0, bias=0.0, reduction="none")
        tensor([1.3507, 1.0642])
    """
    scores = _image_and_text(image, text, temperature=temperature, bias=bias).scores()
    sign = 1.0 - 2.0 * torch.eye(scores.shape[0], dtype=scores.dtype, device=scores.device)
    costs = softplus(sign * scores)
    if sample_weight is not None:
        costs = torch.where(sample_weight == 0, 0.0, costs)
    return costs.sum(1)


class SigLIPLoss(Loss):
    """Module form of :func:`siglip_loss` that learns temperature and bias.

    Both are parameters with one element: ``log_temperature``, whose exponential divides, and
    ``bias``. Give them to the optimiser together with those of the network.

    Example:
        >>> import lossmith as lm
        >>> [name for name, _ in lm.SigLIPLoss().named_parameters()]
        ['log_temperature', 'bias']
    """

    function = staticmethod(siglip_loss)

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        bias: float = -10.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction=reduction)
        POSITIVE.check_option("temperature", temperature)
        REAL.check_option("bias", bias)
        self.log_temperature = nn.Parameter(torch.tensor([math.log(temperature)]))
        self.bias = nn.Parameter(torch.tensor([float(bias)]))

    def forward(
        self, *tensors: Tensor, sample_weight: Tensor | None = None, **named: Tensor
    ) -> Tensor:
        """The loss of image and text under the own temperature and bias."""
        own = {"temperature": self.log_temperature.exp(), "bias": self.bias}
        return super().forward(*tensors, sample_weight=sample_weight, **own | named)
