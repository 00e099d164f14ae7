"""InfoNCE, NT-Xent and SigLIP: by hand, learnable temperatures, one sample alone."""

import math

import pytest
import torch

import lossmith as lm

LOSSES = (lm.info_nce_loss, lm.nt_xent_loss, lm.siglip_loss)
every = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


@pytest.mark.parametrize("loss", [lm.info_nce_loss, lm.nt_xent_loss])
def test_one_sample_has_nothing_to_be_confused_with(loss: object) -> None:
    query = torch.tensor([[1.0, 2.0]], requires_grad=True)
    value = loss(query, torch.tensor([[-1.0, 0.5]]))
    assert value == 0
    (gradient,) = torch.autograd.grad(value, query)
    assert (gradient == 0).all()


def test_info_nce_is_cross_entropy_of_cosines() -> None:
    torch.manual_seed(1)
    query, key = torch.randn(2, 6, 4, dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(query[:, None], key[None], dim=-1)
    labels = torch.arange(6)
    rows = torch.nn.functional.cross_entropy(cosines / 0.2, labels)
    columns = torch.nn.functional.cross_entropy(cosines.T / 0.2, labels)
    found = lm.info_nce_loss(query, key, temperature=0.2)
    both = lm.info_nce_loss(query, key, temperature=0.2, symmetric=True)
    torch.testing.assert_close(found, rows)
    torch.testing.assert_close(both, (rows + columns) / 2)


def test_nt_xent_leaves_the_view_itself_out() -> None:
    """By hand: two orthogonal samples, so e / (e + 2), not e / (2 e + 2)."""
    views = torch.eye(2, dtype=torch.float64)
    expected = -math.log(math.e / (math.e + 2))
    assert lm.nt_xent_loss(views, views, temperature=1.0).item() == pytest.approx(expected)


@every
def test_length_of_the_embeddings_does_not_count(loss: object) -> None:
    torch.manual_seed(2)
    query, key = torch.randn(2, 5, 3)
    scale = torch.tensor([1e-30, 1e-10, 1.0, 1e10, 1e30]).unsqueeze(1)
    torch.testing.assert_close(loss(query * scale, key), loss(query, key))


@every
def test_temperature_may_learn(loss: object) -> None:
    torch.manual_seed(3)
    query, key = torch.randn(2, 5, 3, dtype=torch.float64)
    temperature = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: loss(query, key, temperature=t), (temperature,))
    assert loss(query, key, temperature=temperature) == loss(query, key, temperature=0.7)
    with pytest.raises(ValueError, match="temperature must be a number or have one element"):
        loss(query, key, temperature=torch.ones(5))
    with pytest.raises(ValueError, match="temperature must be > 0"):
        loss(query, key, temperature=torch.zeros(1))


def test_siglip_learns_temperature_and_bias() -> None:
    torch.manual_seed(4)
    image = torch.randn(8, 4)
    module = lm.SigLIPLoss(temperature=1.0, bias=0.0)
    expected = lm.siglip_loss(image, image, temperature=1.0, bias=0.0)
    torch.testing.assert_close(module(image, image), expected)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(20):
        optimiser.zero_grad()
        value = module(image, image)
        value.backward()
        optimiser.step()
    assert value < expected
    assert module.log_temperature < 0
    assert module.bias < 0
    other = lm.SigLIPLoss()
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(image, image), module(image, image))
    assert module.double()(image.double(), image.double()).dtype is torch.float64


def test_siglip_starts_where_the_paper_starts() -> None:
    module = lm.SigLIPLoss()
    assert module.log_temperature.item() == pytest.approx(-math.log(10))
    assert module.bias.item() == -10
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        lm.SigLIPLoss(temperature=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_feature_correlates_with_nothing(dtype: torch.dtype) -> None:
    """What rounding leaves of it is no feature."""
    for constant in (0.1, 0.3, 0.7, 1.1, 3.3):
        for count in range(2, 40):
            view = torch.full((count, 1), constant, dtype=dtype, requires_grad=True)
            value = lm.barlow_twins_loss(view, view)
            assert value.item() == 1.0
            assert not torch.autograd.grad(value, view)[0].any()


def test_a_part_of_factor_0_may_overflow() -> None:
    view = (torch.randn(6, 3) * 1e20).requires_grad_()
    value = lm.vicreg_loss(view, -view.detach(), invariance=0.0, covariance=0.0)
    assert value.item() == 0.0
    assert not torch.autograd.grad(value, view)[0].any()
    same = lm.vicreg_loss(view, view.detach().clone(), covariance=0.0)
    assert same.item() == 0.0


def test_views_of_two_dtypes_in_stripes() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 600, 8, generator=generator)
    for symmetric in (False, True):
        found = lm.info_nce_loss(query, key.double(), symmetric=symmetric)
        expected = lm.info_nce_loss(query.double(), key.double(), symmetric=symmetric)
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    found = lm.siglip_loss(query, key.double())
    torch.testing.assert_close(
        found.double(), lm.siglip_loss(query.double(), key.double()), rtol=1e-6, atol=0
    )


def test_mmd_keeps_its_digits_beside_an_outlier_and_between_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    for count in (10, 600):
        p, q = torch.randn(2, count, 2, generator=generator)
        p[0] = 1e6
        apart = p.clone(), q.clone()
        for one in apart:
            one[::2] += 1e4
            one[1::2] -= 1e4
        for pair in ((p, q), apart):
            found, expected = lm.mmd_loss(*pair), lm.mmd_loss(*(one.double() for one in pair))
            torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-7)
    assert lm.mmd_loss(q, q + 1, bandwidth=1e-25).isfinite()
    learned = torch.tensor(1e-25, requires_grad=True)  # its square is no number of float32
    value = lm.mmd_loss(q, q + 1, bandwidth=learned)
    assert value.isfinite()
    assert torch.autograd.grad(value, learned)[0].isfinite()
