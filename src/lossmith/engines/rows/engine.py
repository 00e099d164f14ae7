"""The engine of losses over a softmax: which calls it takes, and how they come out.

The value and the gradient are worked out together, block by block, and the backward pass only
scales. Logits are left as they are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lossmith.core.autocast import rounded
from lossmith.core.checks import eager
from lossmith.core.loss import NATIVE_REDUCTION
from lossmith.core.route import Call, Following
from lossmith.engines.eligible import by_triton, on_gpu
from lossmith.engines.one_pass import Path
from lossmith.engines.pull import Pull, is_one, with_pull

_NONE = NATIVE_REDUCTION["none"]


class Done(NamedTuple):
    """A reduced loss and what its gradient needs.

    Attributes:
        value: The reduced loss.
        slopes: Its gradient by each of the first arguments, None where none is wanted.
        divisor: What the gradients have still to be divided by: in float16 the small numbers that
            a mean leads to would lose their digits.
        pull: Works the gradients out in the backward pass instead, from ``slopes``, which then are
            what it needs besides the logits.
    """

    value: Tensor
    slopes: tuple[Tensor | None, ...]
    divisor: Tensor | None = None
    pull: Pull | None = None


Kernel = Callable[[Call, tuple[bool, ...]], Done | None]


class Rows:
    """The engine of one loss.

    Args:
        kernel: ``kernel(call, needs)`` returns value and slopes, computed on detached tensors, or
            None where it finds values that only the plain function knows how to treat.
        device: The same for a GPU, which looks at no value; None if there is none.
        logits: How many of the first tensors are logits; no gradient flows to the others.
    """

    early = True

    def __init__(self, kernel: Kernel, device: Kernel | None = None, logits: int = 1) -> None:
        self.kernel, self.device, self.logits = kernel, device, logits

    def plan(self, call: Call) -> Path:
        """How a call is computed."""
        lacking = self._declines(call)
        if lacking:
            return Path("plain", lacking)
        if on_gpu(call.tensors[0]):
            return Path("rows", "Triton's kernels read the logits once forward and once backward")
        return Path("rows", "value and gradient together, in blocks of rows that stay in the cache")

    def _declines(self, call: Call) -> str:
        """Why the call is none for this engine; else empty."""
        given = call.arguments()
        if len({t.device for t in given if t.ndim}) > 1:
            return "the tensors are on several devices"
        if on_gpu(given[0]):
            if self.device is None or any(
                t.is_floating_point() for t in call.tensors[self.logits :]
            ):
                return "there is no GPU kernel for it"
            if given[0].numel() == 0:
                return "there are no rows"
            if given[0].dtype is torch.float64:
                return "the GPU kernels compute in float32"
            if not by_triton(given[0]):
                return "Triton is not installed"
        elif given[0].device.type != "cpu":
            return f"there is no kernel for a device of type {given[0].device.type}"
        if not eager(*given):
            return "a transform, forward-mode AD or a tensor subclass is at work"
        if any(t.requires_grad for t in given[self.logits :]):
            return "something other than logits wants a gradient"
        return ""

    def __call__(self, call: Call) -> Tensor | None:
        """The loss, or None to leave it to the plain function."""
        if self._declines(call):
            return None
        given = call.arguments()
        leaves = given[: self.logits]
        needs = tuple(torch.is_grad_enabled() and t.requires_grad for t in leaves)
        kernel = self.device if on_gpu(given[0]) else self.kernel
        assert kernel is not None
        done = kernel(call.over([t.detach() for t in given]), needs)
        if done is None:
            return None
        value = rounded(done.value, given[0])
        if not any(needs):
            return value
        kept = tuple(s for s in done.slopes if s is not None)
        pull = done.pull or _Pull(needs, done.divisor)
        if done.pull is None and kept[0].data_ptr() == leaves[0].data_ptr():
            return _Overwritten.apply((value,), pull, kept[0], *leaves)  # type: ignore[no-any-return]
        return with_pull(
            value,
            _NONE,
            pull,
            _plain(call),
            leaves=leaves,
            others=given[self.logits :],
            kept=kept,
            done=True,
        )


class _Pull(NamedTuple):
    needs: tuple[bool, ...]
    divisor: Tensor | None

    def __call__(
        self, grad: Tensor, needed: Any, leaves: Any, *slopes: Tensor
    ) -> tuple[Tensor | None, ...]:
        if self.divisor is not None:
            grad = grad / self.divisor
        unit = is_one(grad)
        left = iter(slopes)
        pulls: list[Tensor | None] = []
        for known, wanted in zip(self.needs, needed, strict=True):
            slope = next(left) if known else None
            if slope is None or not wanted:
                pulls.append(None)
            elif unit:
                pulls.append(slope)
            else:
                pulls.append(slope * (grad.unsqueeze(1) if grad.ndim else grad))
        return tuple(pulls)


class _Overwritten(torch.autograd.Function):
    """A value whose slope stands where its logits did."""

    @staticmethod
    def forward(
        ctx: Any, result: tuple[Tensor], pull: _Pull, slope: Tensor, leaf: Tensor
    ) -> Tensor:
        ctx.pull, ctx.slope = pull, slope
        torch.autograd.graph.increment_version(leaf)  # whoever needs the logits shall hear of it
        return result[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("overwrite_input=True leaves nothing to differentiate twice")
        return None, None, None, *ctx.pull(grads[0], (True,), (), ctx.slope)


def _plain(call: Call) -> Callable[..., Tensor]:
    """The loss as a function of the tensors of a call, without any engine."""
    nothing = torch.empty(0)  # tensors must not live on in the graph
    template = call.over([nothing] * len(call.arguments()))

    def plain(*tensors: Tensor) -> Tensor:
        again = template.over(tensors)
        assert again.card.function is not None
        with Following(lambda other: other.compute() if other.engine is None else None):
            return again.card.function(
                *again.tensors,
                sample_weight=again.weight,
                reduction=again.reduction,
                **again.options,
            )

    return plain
