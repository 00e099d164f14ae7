"""Many modules of one shape trained as one: stacked parameters, one forward pass, one step.

The sum of the models' losses has, for each model, the gradient of its own loss, and AdamW works
element by element. So training the stack is training each model alone, only faster.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state  # pyright: ignore[reportPrivateImportUsage]

Optimiser = Literal["adamw", "sgd"]
FAST, SLOW, EPS = 0.9, 0.999, 1e-8


class Stack:
    """Modules with stacked state and their optimiser.

    Attributes:
        sequential: Why the modules are run one by one instead of under ``vmap``; empty if they
            are not.
    """

    def __init__(
        self, models: list[nn.Module], rates: Tensor, decay: float, optimiser: Optimiser
    ) -> None:
        """Stack the modules.

        Args:
            models: Modules of one architecture.
            rates: Step size of each, ``(models,)``.
            decay: Decoupled weight decay.
            optimiser: ``"adamw"``, or ``"sgd"`` without momentum.
        """
        self.base = models[0]
        parameters, buffers = stack_module_state(models)
        self.parameters: dict[str, Tensor] = dict(parameters)
        self.buffers: dict[str, Tensor] = dict(buffers)
        self.rates, self.decay, self.optimiser = rates, decay, optimiser
        self.moments = [
            (torch.zeros_like(one), torch.zeros_like(one)) for one in self.parameters.values()
        ]
        self.steps = 0
        self.sequential = ""

    def __len__(self) -> int:
        return len(self.rates)

    def probe(self, x: Tensor) -> None:
        """Find out on a few rows ``(models, rows, inputs)`` whether ``vmap`` can run the modules.

        Modules that cannot (control flow that looks at values, kernels without a batching rule,
        writes into unbatched state) are run one by one ever after.
        """
        kept = self.buffers
        self.buffers = {name: one.clone() for name, one in kept.items()}
        try:
            torch.autograd.grad(self(x).sum(), self.leaves, allow_unused=True)
        except Exception as error:  # torch raises many kinds here, and each means the same
            self.sequential = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        self.buffers = kept

    @property
    def leaves(self) -> list[Tensor]:
        """The stacked parameters."""
        return list(self.parameters.values())

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs ``(models, rows, outputs)`` of features ``(models, rows, inputs)``."""
        if self.sequential:
            return self._one_by_one(x)
        return torch.vmap(self._single, randomness="different")(self.parameters, self.buffers, x)

    def _single(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor
    ) -> Tensor:
        return functional_call(self.base, (parameters, buffers), (x,))

    def _one_by_one(self, x: Tensor) -> Tensor:
        # unbind once: its backward is one stack, where a select for each model would make
        # a gradient as large as the whole stack
        parameters = {name: one.unbind() for name, one in self.parameters.items()}
        buffers = {name: one.unbind() for name, one in self.buffers.items()}
        return torch.stack(
            [
                self._single(
                    {name: one[index] for name, one in parameters.items()},
                    {name: one[index] for name, one in buffers.items()},
                    rows,
                )
                for index, rows in enumerate(x.unbind())
            ]
        )

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Outputs in evaluation mode, without a graph."""
        self.base.eval()
        outputs = self(x)
        self.base.train()
        return outputs

    def step(self, loss: Tensor) -> None:
        """One step of every model down the sum of the models' losses."""
        gradients = torch.autograd.grad(loss, self.leaves, allow_unused=True)
        self.steps += 1
        with torch.no_grad():
            for place, gradient in enumerate(gradients):
                if gradient is not None:
                    self._update(place, gradient)

    def _update(self, place: int, gradient: Tensor) -> None:
        """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), a step size for each model."""
        parameter = self.leaves[place]
        rate = self.rates.view(-1, *[1] * (parameter.ndim - 1))
        parameter.mul_(1 - rate * self.decay)
        if self.optimiser == "sgd":
            parameter.sub_(rate * gradient)
            return
        mean, square = self.moments[place]
        mean.lerp_(gradient, 1 - FAST)
        square.mul_(SLOW).addcmul_(gradient, gradient, value=1 - SLOW)
        size = square.sqrt().div_((1 - SLOW**self.steps) ** 0.5).add_(EPS)
        parameter.addcdiv_(mean * (-rate / (1 - FAST**self.steps)), size)

    def keep(self, models: Tensor) -> None:
        """Go on with some of the models, ``models`` being their places."""
        self.parameters = {
            name: one.detach()[models].requires_grad_() for name, one in self.parameters.items()
        }
        self.buffers = {name: one[models] for name, one in self.buffers.items()}
        self.moments = [(mean[models], square[models]) for mean, square in self.moments]
        self.rates = self.rates[models]
