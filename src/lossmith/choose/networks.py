"""The models that a tournament trains, by name or by the user's factory."""

import torch
from torch import nn

from lossmith.choose.errors import DataError
from lossmith.tabular.networks import MODELS, Model, check_module


def build(model: str | Model, inputs: int, outputs: int, seeds: list[int]) -> list[nn.Module]:
    """One module for each seed; the initial weights depend on the seed alone.

    Raises:
        DataError: If the factory gives no module of the right shape.
    """
    factory = MODELS[model] if isinstance(model, str) else model
    made: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        for seed in seeds:
            torch.manual_seed(seed)
            made.append(factory(inputs, outputs))
        try:
            check_module(made[0], inputs, outputs)
        except ValueError as error:
            raise DataError(str(error)) from None
    return made


def describe(model: str | Model, inputs: int) -> str:
    """Words that tell two models apart, for the plan."""
    return model if isinstance(model, str) else repr(build(model, inputs, 1, [0])[0])
