"""``linear_head``: a loss of logits becomes a loss of hidden states and the last layer."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lossmith.core.autocast import autocasts
from lossmith.core.card import Card
from lossmith.core.checks import fail, fail_type, said
from lossmith.core.domain import REAL, Domain, Simplex, Vector, Whole
from lossmith.core.loss import build
from lossmith.core.module import Loss
from lossmith.core.reduction import Terms
from lossmith.core.signature import Signature
from lossmith.engines.choice import adopt
from lossmith.engines.class_rows import class_rows
from lossmith.engines.linear_head import LinearHead
from lossmith.engines.linear_products import Head
from lossmith.engines.row_passes import inner, terms
from lossmith.losses.classification.cross_entropy import cross_entropy

Function = Callable[..., Tensor]
# Passes that work in place
SWIFT = {cross_entropy: class_rows}
# Devices on which products of half precision take a fraction of the time; they add up in float32
FASTER = frozenset({"cuda"})


def linear_head(
    loss: Function, *, heads: int = 1, memory: int | None = None
) -> Callable[..., Tensor]:
    r"""A row loss that takes hidden states and the weight of a linear layer instead of logits.

    .. math:: \ell(h W^\top + b,\ \text{target})

    The logits of a language model are the largest tensor of its training step. Here they exist for
    a block of rows at a time: value and gradients of a block are worked out together, and what
    remains are the gradients of hidden states, weight and bias, added up in float32. Options,
    weights, absent labels and reductions are those of the loss, and mean the same.

    The result is called with ``(hidden, weight, *rest, bias=None, **options)``:

    - ``hidden``: ``(*, H)``, floating point; ``weight``: ``(C, H)``; ``bias``: ``(C)``.
    - ``rest``: what the loss takes besides logits; ``(*)`` for class indices, ``(*, C)`` for
      probabilities, where ``*`` are the dimensions of ``hidden`` but the last.
    - ``options``: those of the loss, ``sample_weight``, ``(*)``, and ``reduction`` among them.

    In half precision logits are float32; their slopes are rounded to it before they are multiplied
    where the device does so itself: a GPU, or for bfloat16 a CPU with AVX-512 BF16 or AMX. For AMX
    torch has one switch for the float32 products of all threads. It stays as it is where you have
    set it (``torch.backends.mkldnn.matmul.fp32_precision``), and where other threads than daemons
    are alive; products take three times as long then.

    Cross-entropy of class indices in bfloat16, without a bias or a ``softcap``, takes another way
    on a CPU with AMX, up to 1024 features and from 4096 classes on: torch's attention kernel makes
    the gradients, no logits are written, and neither the switch nor ``memory`` matters. It rounds
    probabilities, and its results, to bfloat16; the value comes from logits in float32.

    A tensor without ``requires_grad`` costs nothing in the backward pass. For a graph of the
    gradient, under ``torch.func`` transforms, in forward mode and under ``torch.compile``, all
    logits are computed at once; :func:`lossmith.explain_path` says so.

    With ``reduction="none"`` the gradient needs the slopes of the logits after the value is known:
    ``memory`` decides how many are kept, and the others are worked out once more.

    Args:
        loss: A row loss of logits ``(N, C)``, or several, then its other tensors: a loss of
            lossmith, a Module, or a function of your own in plain torch that returns one value per
            row.
        heads: How many of its first tensors are logits of linear layers. Every further layer is
            passed as two tensors after the ones before it, and its bias by keyword: for a loss of
            ``input`` and ``target``, ``target_bias``.
        memory: Bytes for the logits at hand and for slopes that are kept. None for as many as leave
            all that is held, the gradients while they are added up included, at the size of all
            logits in the dtype of ``hidden``; but a fifth of all logits in float32 at least, a
            quarter of these gradients, and 16 MiB.

    Returns:
        The loss of hidden states: scalar, or ``(*)`` for ``reduction="none"``.

    Raises:
        TypeError: If ``loss`` cannot be called, or ``heads`` or ``memory`` is no whole number.
        ValueError: If ``loss`` is not a row loss of logits, or ``heads`` or ``memory`` is below 1
            or beyond what ``loss`` takes.

    Example:
        >>> import torch, lossmith as lm
        >>> hidden, weight = torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> loss = lm.linear_head(lm.cross_entropy)
        >>> loss(hidden, weight, torch.tensor([0]))  # logits 2 and 0
        tensor(0.1269)

        The log-probabilities of given labels, for a preference loss:

        >>> -loss(hidden, weight, torch.tensor([0]), reduction="none")
        tensor([-0.1269])

        Distillation, from the hidden states of a teacher and its layer:

        >>> distil = lm.linear_head(lm.kl_div_from_logits_loss, heads=2)
        >>> distil(hidden, weight, hidden, 0.5 * weight)  # teacher logits 1 and 0
        tensor(0.0826)

    Wijmans et al. 2024, arXiv:2411.09009, compute this loss without the logits for cross-entropy.
    """
    if not callable(loss):
        fail_type("loss", "be a loss or a function", loss)
    Whole(1).check_option("heads", heads)
    if memory is not None:
        Whole(1).check_option("memory", memory)
    function = getattr(type(loss), "function", loss) if isinstance(loss, Loss) else loss
    made: dict[Function, _Over] = {}

    def over(row: Function) -> _Over:
        if row not in made:
            made[row] = _Over(row, heads, memory)
        return made[row]

    if isinstance(getattr(function, "card", None), Card):
        only = over(function)

        def head(*tensors: Tensor, **options: Any) -> Tensor:
            if isinstance(loss, Loss):
                options = {name: getattr(loss, name) for name in type(loss).fields} | options
            return only(*tensors, **options)

        head.checked = True  # type: ignore[attr-defined]
        return head
    if isinstance(loss, Loss):
        fail("loss", "be one loss", said(type(loss).__name__))
    adopted = adopt(function, "row", "loss")

    def adopted_head(*tensors: Tensor, **options: Any) -> Tensor:
        if not all(isinstance(tensor, Tensor) and tensor.ndim for tensor in tensors[:1]):
            fail_type("hidden", "be a tensor with a dimension of features", tensors[0])
        # stand-ins of the ranks that the function will see: hidden states for logits
        lead = tensors[0].ndim - 1
        seen = (*tensors[: 2 * heads : 2], *tensors[2 * heads :])
        flat = [t.flatten(0, lead - 1) if lead > 1 else t for t in seen]
        return over(adopted(tuple(flat)))(*tensors, **options)

    adopted_head.checked = True  # type: ignore[attr-defined]
    return adopted_head


class _Over:
    """A row loss over linear layers, for hidden states of any rank."""

    def __init__(self, row: Function, heads: int, memory: int | None) -> None:
        card: Card = row.card  # type: ignore[attr-defined]
        self.name = card.name
        ways = [way for way in card.signatures if _takes_logits(way, heads)]
        if card.coupling != "row" or not ways:
            kind = (
                f"{card.name}, a loss of {card.coupling} coupling: {card.signatures[0].describe()}"
            )
            count = "logits (N, C)" if heads == 1 else f"{heads} tensors of logits (N, C)"
            fail("loss", f"be a row loss of {count}", said(kind))
        prefixes = ["", *(f"{name}_" for name in card.tensors[1:heads])]
        biases = tuple(f"{prefix}bias" for prefix in prefixes)
        domains = list(ways[0].tensors.values())[:heads]
        rules = {name: Vector(d.dims[1:2]) for name, d in zip(biases, domains, strict=True)}
        signatures = tuple(_over_layers(way, prefixes) for way in ways)
        domains = signatures[0].tensors
        self.heads = heads
        self.by_row = {name for name, domain in domains.items() if domain.dims[:1] == ("N",)}
        own = {n: r.dims[:1] for n, r in card.options.items() if isinstance(r, Vector)}
        self.by_row |= {"sample_weight", *(name for name, dims in own.items() if dims == ("N",))}
        self.names = tuple(domains)
        self.function = build(
            Card(
                task=card.task,
                coupling="row",
                formula=card.formula,
                signatures=signatures,
                options={**card.options, **rules},
                nonnegative=card.nonnegative,
                differentiable=card.differentiable,
                reductions=card.reductions,
                use_when=card.use_when,
                avoid_when=card.avoid_when,
                source=card.source,
            ),
            _plain(row, biases),
            engine=LinearHead(row, biases, SWIFT.get(row), memory),
        )

    def __call__(self, *tensors: Tensor, reduction: str = "mean", **options: Any) -> Tensor:
        if len(tensors) != len(self.names):
            wanted = ", ".join(self.names)
            raise TypeError(
                f"linear_head({self.name}) takes {wanted} by position, got {len(tensors)} tensors"
            )
        if not isinstance(tensors[0], Tensor) or tensors[0].ndim == 0:
            fail_type("hidden", "be a tensor with a dimension of features", tensors[0])
        lead = tensors[0].shape[:-1]
        named = zip(self.names, tensors, strict=True)
        flat = [_flat(name, t, lead) if name in self.by_row else t for name, t in named]
        for name in self.by_row & options.keys():
            options[name] = _flat(name, options[name], lead)
        flat = _cast(flat, 2 * self.heads)
        value = self.function(*flat, reduction=reduction, **options)
        return value.reshape(lead) if reduction == "none" else value


def _cast(tensors: list[Any], layers: int) -> list[Any]:
    """Under autocast, where that makes products faster, the layers in the dtype that it chose."""
    device = tensors[0].device.type
    if device not in FASTER or not autocasts(tensors[0]):
        return tensors
    low = torch.get_autocast_dtype(device)
    cast = [t.to(low) if t.dtype == torch.float32 else t for t in tensors[:layers]]
    return [*cast, *tensors[layers:]]


def _flat(name: str, tensor: Any, lead: torch.Size) -> Any:
    """One dimension in place of those that belong to the rows; what is no tensor stays as it is."""
    if not isinstance(tensor, Tensor):
        return tensor
    if tensor.shape[: len(lead)] != lead:
        shape = said(str(tuple(tensor.shape)))
        fail(name, f"begin with the dimensions {tuple(lead)} of hidden", shape)
    return tensor.reshape(math.prod(lead), *tensor.shape[len(lead) :])


def _plain(row: Function, biases: tuple[str, ...]) -> Callable[..., Terms]:
    """The row loss of all logits, in plain torch."""
    count = len(biases)

    def body(*tensors: Tensor, sample_weight: Tensor | None = None, **options: Any) -> Terms:
        bias = [options.pop(name, None) for name in biases]
        pairs = zip(tensors[: 2 * count : 2], tensors[1 : 2 * count : 2], bias, strict=True)
        logits = [Head(*each).plain() for each in pairs]
        return terms(inner(row, *logits, *tensors[2 * count :], **options))

    body.__name__ = f"linear_head({row.card.name})"  # type: ignore[attr-defined]
    own = inspect.signature(row).parameters.values()
    options = [p.replace(kind=p.KEYWORD_ONLY) for p in own if p.default is not p.empty]
    word = inspect.Parameter.KEYWORD_ONLY
    options += [inspect.Parameter(name, word, default=None) for name in biases]
    body.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return body


def _takes_logits(way: Signature, heads: int) -> bool:
    """Whether the first tensors are any real numbers, a row of them per sample.

    An image has one loss for all of its positions, and no row of its own.
    """
    domains = list(way.tensors.values())[:heads]
    return len(domains) == heads and all(
        d.dims[:1] == ("N",)
        and len(d.dims) - ("*" in d.dims) == 2
        and ("*" in d.dims) == ("*" in way.out)
        and d.floating is True
        and not isinstance(d, Simplex)
        and not d.checks_values
        for d in domains
    )


def _over_layers(way: Signature, prefixes: list[str]) -> Signature:
    """The signature with hidden states and a weight in place of each of the first tensors."""
    tensors: dict[str, Domain] = {}
    for position, (name, domain) in enumerate(way.tensors.items()):
        dims = [dim for dim in domain.dims if dim != "*"]
        if position < len(prefixes):
            prefix = prefixes[position]
            tensors[f"{prefix}hidden"] = REAL(f"N {prefix}features")
            tensors[f"{prefix}weight"] = REAL(f"{dims[1]} {prefix}features")
        else:
            tensors[name] = domain(" ".join(dims))
    return Signature(out="N", when=way.when, **tensors)
