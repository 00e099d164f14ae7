"""Many modules of one shape trained as one: stacked parameters, one forward pass, one step.

The sum of the models' losses has, for each model, the gradient of its own loss, and AdamW works
element by element. So training the stack is training each model alone, only faster.

What a module draws in its forward pass, as dropout does, depends on the seed of the model and on
the number of the step alone: models of one seed draw the same, whatever they are trained with and
whoever is beside them.
"""

from typing import Literal

import numpy as np
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
        draws: Whether the modules draw numbers.
    """

    def __init__(
        self,
        models: list[nn.Module],
        rates: Tensor,
        decay: float,
        optimiser: Optimiser,
        seeds: Tensor | None = None,
    ) -> None:
        """Stack the modules.

        Args:
            models: Modules of one architecture.
            rates: Step size of each, ``(models,)``.
            decay: Decoupled weight decay.
            optimiser: ``"adamw"``, or ``"sgd"`` without momentum.
            seeds: Seed of what each draws, ``(models,)`` whole numbers; None is 0 for all.
        """
        self.base = models[0]
        parameters, buffers = stack_module_state(models)
        self.parameters: dict[str, Tensor] = dict(parameters)
        self.buffers: dict[str, Tensor] = dict(buffers)
        self.rates, self.decay, self.optimiser = rates, decay, optimiser
        self.moments = [
            (torch.zeros_like(one), torch.zeros_like(one)) for one in self.parameters.values()
        ]
        self.seeds = torch.zeros(len(models), dtype=torch.int64) if seeds is None else seeds
        self.steps = 0
        self.sequential, self.draws = "", False

    def __len__(self) -> int:
        return len(self.rates)

    def probe(self, x: Tensor) -> None:
        """Find out on a few rows ``(models, rows, inputs)`` whether ``vmap`` can run the modules.

        Modules that cannot (control flow that looks at values, kernels without a batching rule,
        writes into unbatched state) are run one by one ever after.
        """
        kept = self.buffers
        self.buffers = {name: one.clone() for name, one in kept.items()}
        with torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            try:
                torch.autograd.grad(self(x).sum(), self.leaves, allow_unused=True)
            except Exception as error:  # torch raises many kinds here, and each means the same
                self.sequential = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            self.draws = bool(self.sequential) or not torch.equal(before, torch.get_rng_state())
        self.buffers = kept

    @property
    def leaves(self) -> list[Tensor]:
        """The stacked parameters."""
        return list(self.parameters.values())

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs ``(models, rows, outputs)`` of features ``(models, rows, inputs)``."""
        if not self.draws:
            return self._at_once(self.parameters, self.buffers, x)
        with torch.random.fork_rng(devices=[]):
            return self._one_by_one(x) if self.sequential else self._seed_by_seed(x)

    def _at_once(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor
    ) -> Tensor:
        return torch.vmap(self._single, randomness="same")(parameters, buffers, x)

    def _seed(self, seed: int) -> None:
        """Begin to draw for a model; hashed, as torch keeps 32 bits of a seed on the CPU."""
        torch.manual_seed(int(np.random.SeedSequence([seed, self.steps]).generate_state(1)[0]))

    def _seed_by_seed(self, x: Tensor) -> Tensor:
        order = self.seeds.argsort(stable=True)
        seeds, counts = (one.tolist() for one in self.seeds.unique(return_counts=True))
        # split once: its backward is one cat, where a slice for each seed would make a gradient
        # as large as the whole stack
        parameters = {name: one[order].split(counts) for name, one in self.parameters.items()}
        buffers = {name: one[order].split(counts) for name, one in self.buffers.items()}
        outputs: list[Tensor] = []
        for place, (seed, rows) in enumerate(zip(seeds, x[order].split(counts), strict=True)):
            self._seed(seed)
            outputs.append(
                self._at_once(
                    {name: one[place] for name, one in parameters.items()},
                    {name: one[place] for name, one in buffers.items()},
                    rows,
                )
            )
        return torch.cat(outputs)[order.argsort()]

    def _single(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor
    ) -> Tensor:
        return functional_call(self.base, (parameters, buffers), (x,))

    def _one_by_one(self, x: Tensor) -> Tensor:
        # unbind once: its backward is one stack, where a select for each model would make
        # a gradient as large as the whole stack
        parameters = {name: one.unbind() for name, one in self.parameters.items()}
        buffers = {name: one.unbind() for name, one in self.buffers.items()}
        outputs: list[Tensor] = []
        for index, rows in enumerate(x.unbind()):
            self._seed(int(self.seeds[index]))
            outputs.append(
                self._single(
                    {name: one[index] for name, one in parameters.items()},
                    {name: one[index] for name, one in buffers.items()},
                    rows,
                )
            )
        return torch.stack(outputs)

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
        self.rates, self.seeds = self.rates[models], self.seeds[models]
