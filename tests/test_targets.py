"""Conversions of targets: against loops, there and back, and refusing what they cannot mean."""

import itertools

import pytest
import torch

from lossmith import targets

INDEX = torch.tensor([[2, 0], [1, 2], [0, 0]])


def test_one_hot_puts_the_one_at_the_class() -> None:
    hot = targets.one_hot(INDEX, classes=4)
    assert hot.shape == (3, 4, 2)
    for n, c, k in itertools.product(range(3), range(4), range(2)):
        assert hot[n, c, k] == float(INDEX[n, k] == c)


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -3])
def test_class_index_undoes_one_hot(dim: int) -> None:
    hot = targets.one_hot(INDEX, classes=5, dim=dim, dtype=torch.float64)
    assert hot.dtype is torch.float64
    assert torch.equal(targets.class_index(hot, dim=dim), INDEX)


def test_bool_one_hot_is_read() -> None:
    assert targets.class_index(torch.tensor([[False, True]])).tolist() == [1]


def test_multi_hot_and_padded_lists_undo_each_other() -> None:
    hot = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)))
    lists = targets.padded_lists(hot)
    for row, listed in zip(hot.tolist(), lists.tolist(), strict=True):
        present = [c for c in range(4) if row[c]]
        assert listed == present + [-1] * (4 - len(present))
    assert torch.equal(targets.multi_hot(lists, classes=4), hot)


def test_multi_hot_of_one_row() -> None:
    assert targets.multi_hot(torch.tensor([1, -1]), classes=3).tolist() == [0.0, 1.0, 0.0]


def test_padded_lists_mean_the_same_to_torch() -> None:
    """torch's multilabel margin reads the lists: classes 0 and 3 against 1 and 2."""
    scores = torch.tensor([[0.1, 0.2, 0.4, 0.8]])
    lists = targets.padded_lists(torch.tensor([[1, 0, 0, 1]]))
    found = torch.nn.functional.multilabel_margin_loss(scores, lists)
    by_hand = ((1 - 0.1 + 0.2) + (1 - 0.1 + 0.4) + (1 - 0.8 + 0.2) + (1 - 0.8 + 0.4)) / 4
    assert found.item() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (torch.tensor([0, 1]), torch.float32),
        (torch.tensor([False, True]), torch.float32),
        (torch.tensor([0.0, 1.0], dtype=torch.float64), torch.float64),
    ],
)
def test_signs_and_zero_one_undo_each_other(labels: torch.Tensor, dtype: torch.dtype) -> None:
    signs = targets.signs(labels)
    assert signs.tolist() == [-1.0, 1.0]
    assert signs.dtype is dtype
    assert torch.equal(targets.zero_one(signs), labels.to(dtype))


def test_pairs_and_triplets_equal_loops() -> None:
    labels = [3, 1, 3, 3, 2, 1]
    first, second, same = targets.pairs(torch.tensor(labels))
    expected = [(i, j, labels[i] == labels[j]) for i, j in itertools.combinations(range(6), 2)]
    assert list(zip(first.tolist(), second.tolist(), same.tolist(), strict=True)) == expected
    found = torch.stack(targets.triplets(torch.tensor(labels)), 1).tolist()
    assert found == [
        [a, p, n]
        for a, p, n in itertools.product(range(6), repeat=3)
        if a != p and labels[a] == labels[p] and labels[a] != labels[n]
    ]


@pytest.mark.parametrize("labels", [[], [1], [1, 1], [1, 2]])
def test_no_triplets_is_empty_not_an_error(labels: list[int]) -> None:
    assert all(len(part) == 0 for part in targets.triplets(torch.tensor(labels)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: targets.one_hot(torch.tensor([3]), classes=3),
            ValueError,
            r"index must be a class index in \[0, 2\], got 3",
        ),
        (
            lambda: targets.one_hot(torch.tensor([-1]), classes=3),
            ValueError,
            r"index must be .*, got -1",
        ),
        (
            lambda: targets.one_hot(torch.tensor([1.0]), classes=3),
            TypeError,
            "index must be of an integer dtype, got torch.float32",
        ),
        (
            lambda: targets.one_hot(torch.tensor([0]), classes=0),
            ValueError,
            "classes must be >= 1, got 0",
        ),
        (
            lambda: targets.one_hot(torch.tensor([0]), classes=2.0),
            TypeError,
            "classes must be a whole number, got float",
        ),
        (
            lambda: targets.one_hot(torch.tensor([0]), classes=2, dtype="float"),
            TypeError,
            "dtype must be a torch.dtype, got str 'float'",
        ),
        (
            lambda: targets.class_index(torch.tensor([[1, 0]]), dim="C"),
            TypeError,
            "dim must be a whole number, got str 'C'",
        ),
        (
            lambda: targets.one_hot(torch.tensor([0]), classes=2, dim=2),
            ValueError,
            r"dim must be in \[-2, 1\], got 2",
        ),
        (
            lambda: targets.class_index(torch.tensor([[0.2, 0.8]])),
            ValueError,
            "hot must be 0 or 1, got 0.2",
        ),
        (
            lambda: targets.class_index(torch.tensor([[1, 1]])),
            ValueError,
            r"hot must hold exactly one 1 along dimension 1 \(sum of a row\), got 2",
        ),
        (
            lambda: targets.class_index(torch.tensor([[0, 0]])),
            ValueError,
            r"hot must hold exactly one 1 .*, got 0",
        ),
        (lambda: targets.class_index([[0, 1]]), TypeError, "hot must be a tensor, got list"),
        (
            lambda: targets.multi_hot(torch.tensor([[-1, 2]]), classes=3),
            ValueError,
            "lists must hold nothing after the first -1, got 2",
        ),
        (
            lambda: targets.multi_hot(torch.tensor([[2, 2]]), classes=3),
            ValueError,
            r"lists must name each class at most once in a row \(count\), got 2",
        ),
        (
            lambda: targets.multi_hot(torch.tensor([[-2]]), classes=3),
            ValueError,
            r"lists must be in \[-1, 2\], got -2",
        ),
        (
            lambda: targets.padded_lists(torch.zeros(1, 1, 1)),
            ValueError,
            r"hot must have the shape \(N, C\) or \(C,\), got \(1, 1, 1\)",
        ),
        (
            lambda: targets.signs(torch.tensor([-1, 1])),
            ValueError,
            "labels must be 0 or 1, got -1",
        ),
        (
            lambda: targets.zero_one(torch.tensor([0.0, 1.0])),
            ValueError,
            "signs must be -1 or 1, got 0.0",
        ),
        (
            lambda: targets.pairs(torch.zeros(2, 2)),
            ValueError,
            r"labels must have the shape \(N,\), got \(2, 2\)",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
