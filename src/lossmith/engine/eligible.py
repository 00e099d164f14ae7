"""When a fast path may serve. In every other case the plain function does."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lossmith.core.checks import transforming


def eager(*tensors: Tensor) -> bool:
    """Plain tensors, no compiler, no ``torch.func`` transform, no forward-mode derivative.

    ``torch.autograd.Function`` under those would be refused or, for forward mode, silently lose the
    tangent. The level of forward mode is a private name of torch; the contract's law
    ``jvp_equals_vjp`` and gradcheck's forward mode watch over it.
    """
    return (
        not torch.compiler.is_compiling()
        and not transforming()
        and forward_ad._current_level < 0
        and all(type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
    )
