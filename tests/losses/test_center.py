"""The center loss owns parameters: they are saved, moved and learnt."""

import pytest
import torch

import lossmith as lm


def module() -> lm.CenterLoss:
    torch.manual_seed(0)
    return lm.CenterLoss(num_classes=3, num_features=2)


def test_training_moves_centers_to_the_class_means() -> None:
    loss = module()
    embeddings = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
    labels = torch.tensor([0, 0, 2, 2])
    untouched = loss.centers[1].clone()
    optimiser = torch.optim.SGD(loss.parameters(), lr=0.5)
    for _ in range(60):
        optimiser.zero_grad()
        loss(embeddings, labels).backward()
        optimiser.step()
    torch.testing.assert_close(loss.centers[[0, 2]].data, torch.tensor([[2.0, 0.0], [0.0, 6.0]]))
    assert torch.equal(loss.centers[1], untouched)


def test_state_and_dtype_move_with_the_module() -> None:
    loss, other = module(), lm.CenterLoss(num_classes=3, num_features=2)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other.centers, loss.centers)
    value = loss.double()(torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 1]))
    assert value.dtype is torch.float64


def test_function_and_module_agree_on_options() -> None:
    loss = lm.CenterLoss(num_classes=3, num_features=2, ignore_index=1, reduction="sum")
    embeddings, labels = torch.ones(3, 2), torch.tensor([0, 1, 2])
    expected = lm.center_loss(embeddings, labels, loss.centers, ignore_index=1, reduction="sum")
    assert torch.equal(loss(embeddings, labels), expected)


def test_sizes_and_options_are_checked() -> None:
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        lm.CenterLoss(num_classes=0, num_features=2)
    with pytest.raises(TypeError, match="ignore_index must be a whole number"):
        lm.CenterLoss(num_classes=3, num_features=2, ignore_index=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"target must be a class index in \[0, 2\], got 3"):
        module()(torch.zeros(1, 2), torch.tensor([3]))
