"""Small networks for tables, and what a network of the user must be."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

# factory(inputs, outputs) -> module that maps (rows, inputs) to (rows, outputs)
Model = Callable[[int, int], nn.Module]
HIDDEN = 32


class Body(nn.Module):
    """A linear map, and beside it one hidden layer of ReLU if there are hidden units.

    The linear path lets the network be as plain as the data are: with little data the hidden
    layer adds what the line cannot say. The layers that give the output start at 0, so losses of
    different widths start from the same function, and the hidden layer from the same weights.

    Args:
        inputs: Number of features.
        outputs: Number of outputs.
        hidden: Units of the hidden layer; 0 makes the network linear.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, hidden) if hidden else None
        self.second = nn.Linear(hidden, outputs, bias=False) if hidden else None
        self.line = nn.Linear(inputs, outputs)
        for layer in (self.line, self.second):
            if layer is not None:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(rows, outputs)`` of features ``(rows, inputs)``."""
        output = self.line(x)
        if self.first is not None and self.second is not None:
            output = output + self.second(torch.relu(self.first(x)))
        return output


MODELS: dict[str, Model] = {"mlp": Body, "linear": partial(Body, hidden=0)}


def check_module(module: nn.Module, inputs: int, outputs: int) -> None:
    """Refuse what a factory made if it does not map ``(rows, inputs)`` to ``(rows, outputs)``.

    Raises:
        ValueError: With what it does instead.
    """
    if not isinstance(module, nn.Module):
        raise ValueError(f"model must return a torch.nn.Module, got {type(module).__name__}")
    try:
        with torch.no_grad():
            shape = tuple(module.eval()(torch.zeros(2, inputs)).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"model must map (rows, {inputs}) to (rows, {outputs}), calling it failed: {error}"
        ) from None
    finally:
        module.train()
    if shape != (2, outputs):
        raise ValueError(f"model must map (2, {inputs}) to (2, {outputs}), got {shape}")
