"""A small CNN on handwritten digits: Adam, cross-entropy, 10 epochs, and three remedies.

Few training images make over-fitting visible as the gap between training and validation loss.
L1 and L2 penalties on the parameters and Dropout each narrow it.
"""

from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassRecall

import lossmith as lm


class Result(NamedTuple):
    """Scores on the validation images, and the loss on both sides."""

    accuracy: float
    recall: float
    f1: float
    train: float
    validation: float

    @property
    def gap(self) -> float:
        """How much worse unseen images are."""
        return self.validation - self.train


def network(dropout: float) -> nn.Sequential:
    """Two convolutions and a linear layer for 8 x 8 images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, 10),
    )


def parameter_vector(model: nn.Module) -> torch.Tensor:
    """All weights as one vector, which is what the penalties take."""
    return nn.utils.parameters_to_vector(model.parameters())


def train(*, l1: float = 0.0, l2: float = 0.0, dropout: float = 0.0) -> Result:
    """Ten epochs with Adam on 200 images; everything else is for validation."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    X = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels)
    few, rest = train_test_split(range(len(y)), train_size=200, stratify=y, random_state=0)

    model = network(dropout)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(10):
        model.train()
        for rows in torch.tensor(few)[torch.randperm(len(few))].split(20):
            optimiser.zero_grad()
            value = lm.cross_entropy(model(X[rows]), y[rows])
            weights = parameter_vector(model)
            if l1:
                value = value + l1 * lm.l1_penalty_loss(weights, reduction="sum")
            if l2:
                value = value + l2 * lm.l2_penalty_loss(weights, reduction="sum")
            value.backward()
            optimiser.step()

    model.eval()
    with torch.no_grad():
        seen, unseen = model(X[few]), model(X[rest])
    metrics = (  # accuracy counts images, the others classes: torchmetrics' default is the latter
        MulticlassAccuracy(num_classes=10, average="micro"),
        MulticlassRecall(num_classes=10),
        MulticlassF1Score(num_classes=10),
    )
    scores = [metric(unseen, y[rest]).item() for metric in metrics]
    return Result(
        *scores,
        train=lm.cross_entropy(seen, y[few]).item(),
        validation=lm.cross_entropy(unseen, y[rest]).item(),
    )


def main() -> dict[str, Result]:
    """Train plainly and with each remedy."""
    results = {
        "plain": train(),
        "L1": train(l1=1e-3),
        "L2": train(l2=5e-3),
        "Dropout": train(dropout=0.5),
    }
    print(f"{'':8} accuracy  recall      F1   train  valid.     gap")
    for name, result in results.items():
        numbers = "  ".join(f"{v:6.3f}" for v in (*result, result.gap))
        print(f"{name:8} {numbers}")
    return results


if __name__ == "__main__":
    main()
