"""Cross-entropy of class indices in one pass: value and gradient from a single softmax.

The forward pass keeps the gradient of each row, the backward pass scales it. Twice differentiable:
asked for a graph of the gradient, it differentiates the plain function instead.
``benchmarks/results/torch_losses.json`` has its time against torch's pair of kernels.
"""

from typing import Any

import torch
from torch import Tensor

from lossmith.core.numerics import class_nll


class _ClassNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, index: Tensor, mean: bool) -> Tensor:
        place = index.unsqueeze(1)
        log_share = torch.log_softmax(input, 1)
        usual = log_share.gather(1, place)
        share = log_share.exp_().scatter_(1, place, 0.0)
        rest = share.sum(1, keepdim=True).neg_()
        # log p loses its digits where p is near 1; there 1 - p is at hand, summed directly
        log_p = torch.where(rest > -0.5, rest.log1p(), usual)
        ctx.save_for_backward(input, index, share.scatter_(1, place, rest))
        ctx.mean = mean
        return log_p.mean().neg_() if mean else log_p.squeeze(1).neg_()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, index, pull = ctx.saved_tensors
        (grad,) = grads
        if torch.is_grad_enabled():  # create_graph: the plain function knows all derivatives
            value = class_nll(input, index)
            value = value.mean() if ctx.mean else value
            return torch.autograd.grad(value, input, grad, create_graph=True)[0], None, None
        scale = grad / index.numel() if ctx.mean else grad.unsqueeze(1)
        return pull * scale, None, None


def one_pass_class_nll(input: Tensor, index: Tensor, *, mean: bool) -> Tensor:
    """:func:`lossmith.core.numerics.class_nll` along dimension 1, value and gradient at once."""
    return _ClassNLL.apply(input, index, mean)  # type: ignore[no-any-return]
