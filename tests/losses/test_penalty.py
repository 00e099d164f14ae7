"""Penalties on a model: how they add to a loss, and what they are to an optimizer's decay."""

import copy
import pickle

import pytest
import torch
from torch import nn

import lossmith


def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))


def elements(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def test_penalty_of_a_model_is_that_of_all_its_elements():
    net = model()
    for penalty in (lossmith.L1PenaltyLoss, lossmith.ElasticNetPenaltyLoss):
        for reduction in ("sum", "mean"):
            each = penalty(reduction=reduction)
            found = lossmith.ParameterPenalty(net, each)()
            torch.testing.assert_close(found.detach(), each(elements(net)))


def test_it_adds_to_a_loss_of_predictions():
    net = model()
    input, target = torch.ones(2, 4), torch.zeros(2, 1)
    ridge = lossmith.ParameterPenalty(net, lossmith.L2PenaltyLoss(reduction="sum"))
    total = lossmith.MSELoss() + 0.1 * ridge
    value = total(net(input), target, sample_weight=torch.ones(2, 1))
    expected = net(input).square().mean() + 0.1 * elements(net).square().sum()
    torch.testing.assert_close(value, expected)
    assert set(total.terms) == {"mse_loss", "l2_penalty_loss"}
    value.backward()
    assert all(p.grad is not None for p in net.parameters())


def test_weight_decay_is_half_the_l2_penalty():
    decayed, penalised = model(), model()
    decay = 0.3
    ridge = lossmith.ParameterPenalty(penalised, lossmith.L2PenaltyLoss(reduction="sum"))
    plain = torch.optim.SGD(decayed.parameters(), lr=0.1, weight_decay=decay)
    other = torch.optim.SGD(penalised.parameters(), lr=0.1)
    for _ in range(3):
        for net, optimizer, extra in ((decayed, plain, 0.0), (penalised, other, decay / 2)):
            optimizer.zero_grad()
            (net(torch.ones(2, 4)).mean() + extra * ridge()).backward()
            optimizer.step()
    torch.testing.assert_close(elements(decayed), elements(penalised))


def test_the_model_is_no_part_of_the_loss():
    ridge = lossmith.ParameterPenalty(model(), lossmith.L2PenaltyLoss())
    assert not list(ridge.parameters())
    assert not ridge.state_dict()
    assert repr(ridge).count("Linear") == 0


def test_copies_keep_loss_and_model_together():
    net = model()
    pair = nn.ModuleDict(
        {"net": net, "loss": lossmith.ParameterPenalty(net, lossmith.L2PenaltyLoss())}
    )
    for again in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        with torch.no_grad():
            for parameter in again["net"].parameters():
                parameter.zero_()
        assert again["loss"]().item() == 0
    assert pair["loss"]().item() > 0


def test_some_tensors_alone():
    net = model()
    weights = (p for name, p in net.named_parameters() if "bias" not in name)
    lasso = lossmith.ParameterPenalty(weights, lossmith.L1PenaltyLoss(reduction="sum"))
    lasso().backward()
    assert net[0].bias.grad is None
    assert torch.equal(net[0].weight.grad, net[0].weight.detach().sign())


@pytest.mark.parametrize(
    ("parameters", "penalty", "error", "message"),
    [
        ([], lossmith.L1PenaltyLoss(), ValueError, "parameters must hold at least one tensor"),
        ([1.0], lossmith.L1PenaltyLoss(), TypeError, "parameters must be Modules or tensors"),
        (model(), lossmith.MSELoss(), TypeError, "penalty must be a penalty"),
        (model(), abs, TypeError, "penalty must be a penalty"),
        (model(), lossmith.L1PenaltyLoss(reduction="none"), ValueError, "must be 'mean' or 'sum'"),
    ],
)
def test_bad_arguments_are_refused(parameters, penalty, error, message):
    with pytest.raises(error, match=message):
        lossmith.ParameterPenalty(parameters, penalty)
