"""The setting that the experiments with handwritten digits share."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from lossmith.reproduce.claims import Tick
from lossmith.reproduce.training import Cost, network, train

RATES = (1e-3, 3e-3)
EPOCHS, BATCH, CLASSES = 60, 64, 10
SETTING = (
    "scikit-learn's digits (1797 images of 8x8 pixels), 70 % to train on, split by class; network "
    "64-128-128-10 with ReLU; Adam, batches of 64, 60 epochs; each effect is the mean over the "
    "step sizes 0.001 and 0.003"
)


@dataclass(frozen=True)
class Accuracies:
    """Test accuracies in percent, ``(losses, step sizes, seeds)``.

    Attributes:
        last: At the end of the training.
        best: At the best epoch, chosen on the test images themselves: an upper bound.
        missing: Number of classes that no test image is taken for at the end.
    """

    last: Tensor
    best: Tensor
    missing: Tensor

    def beside(self, names: Sequence[str], note: str = "") -> dict[str, float]:
        """Means of each loss at each step size."""
        kinds = {
            "last epoch": self.last,
            "best epoch": self.best,
            "classes never predicted": self.missing,
        }
        return {
            f"{name}, step {rate:g}, {kind}{note}": float(found[place, column].mean())
            for place, name in enumerate(names)
            for column, rate in enumerate(RATES)
            for kind, found in kinds.items()
        }


def accuracies(
    costs: Sequence[Cost], seeds: Sequence[int], tick: Tick, noise: float = 0.0
) -> Accuracies:
    """Train with each loss and score on clean test images after each epoch.

    Args:
        costs: The losses.
        seeds: One split, start and batch order for each.
        tick: Called with the share that is done.
        noise: Probability that a training label becomes another class, each as likely.
    """
    images, labels = load_digits(return_X_y=True)
    splits = [
        train_test_split(images / 16, labels, test_size=0.3, stratify=labels, random_state=seed)
        for seed in seeds
    ]
    x, test_x, y, test_y = (
        torch.stack([torch.as_tensor(np.asarray(split[place])) for split in splits])
        for place in range(4)
    )
    for member, seed in enumerate(seeds):
        random = np.random.default_rng(seed)
        flips = torch.from_numpy(random.random(y.shape[1]) < noise)
        shifts = torch.from_numpy(random.integers(1, CLASSES, y.shape[1]))
        y[member] = torch.where(flips, (y[member] + shifts) % CLASSES, y[member])
    last = best = torch.zeros(())
    said = torch.zeros((), dtype=torch.int64)
    for epoch, predict in train(
        network(128, 128),
        costs,
        RATES,
        x.float(),
        y,
        outputs=CLASSES,
        epochs=EPOCHS,
        seeds=seeds,
        batch=BATCH,
    ):
        said = predict(test_x.float()).argmax(-1)
        last = 100 * (said == test_y).double().mean(-1)
        best = torch.maximum(best, last)
        tick(epoch / EPOCHS)
    ever = torch.nn.functional.one_hot(said, CLASSES).amax(-2)
    return Accuracies(last, best, (CLASSES - ever.sum(-1)).double())


def effect(gap: Tensor) -> list[float]:
    """Mean over the step sizes of each seed's difference ``(step sizes, seeds)``."""
    return gap.mean(0).tolist()
