"""Many small networks of one shape, one for each cell, computed in one batch.

Parameters carry a leading dimension of cells. The sum of the cells' losses has, for each network,
the gradient of its own loss, and AdamW works element by element: training the stack is training
each network alone, only faster.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lossmith.choose.folds import Cell


@dataclass(frozen=True)
class Shape:
    """Sizes of one network.

    Attributes:
        inputs: Number of features.
        hidden: Units of the hidden layer; 0 makes the network linear.
        outputs: Number of outputs.
    """

    inputs: int
    hidden: int
    outputs: int


class Networks:
    """One network for each cell: linear, or one hidden layer of ReLU beside a linear path.

    The linear path lets the network be as plain as the data are: with little data the hidden
    layer adds what the line cannot say. Initial weights depend on the cell's seed alone, so every
    loss starts from the same ones.
    """

    def __init__(self, shape: Shape, cells: list[Cell]) -> None:
        body: list[list[Tensor]] = []
        for cell in cells:
            generator = torch.Generator().manual_seed(cell.seed)
            weights = [torch.zeros(shape.inputs, shape.outputs), torch.zeros(1, shape.outputs)]
            if shape.hidden:
                weights += [
                    _uniform(shape.inputs, shape.hidden, generator),
                    _uniform(1, shape.hidden, generator) / math.sqrt(shape.inputs),
                    torch.zeros(shape.hidden, shape.outputs),
                ]
            body.append(weights)
        self.parameters = [
            torch.stack(tensors).requires_grad_() for tensors in zip(*body, strict=True)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Outputs ``(cells, rows, outputs)`` of features ``(cells, rows, inputs)``."""
        line, bias, *rest = self.parameters
        output = torch.baddbmm(bias, x, line)
        if rest:
            first, shift, second = rest
            output = torch.baddbmm(output, torch.relu(torch.baddbmm(shift, x, first)), second)
        return output

    def copy(self) -> list[Tensor]:
        """The parameters as they are now."""
        return [parameter.detach().clone() for parameter in self.parameters]

    def load(self, parameters: list[Tensor]) -> None:
        """Set the parameters."""
        with torch.no_grad():
            for mine, other in zip(self.parameters, parameters, strict=True):
                mine.copy_(other)


def _uniform(inputs: int, outputs: int, generator: torch.Generator) -> Tensor:
    """Uniform within ``1/sqrt(inputs)``, as ``torch.nn.Linear`` draws."""
    draws = torch.rand(inputs, outputs, generator=generator)
    return (2 * draws - 1) / math.sqrt(inputs)
