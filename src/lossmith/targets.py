"""One way of writing targets to another, checked: no loss has to guess which one it was given.

Names of the formats: a *class index* ``(N, *)`` holds whole numbers; *one-hot* ``(N, C, *)`` holds
a 1 per position; *multi-hot* ``(N, C)`` holds any number of ones; *signs* are -1 and 1; *padded
lists* ``(N, C)`` hold the class indices of a row, then -1 (the format of
:func:`lossmith.multilabel_margin_loss`).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lossmith.core.checks import fail, fail_type, require_all, require_range, said
from lossmith.core.domain import BINARY, SIGN, Whole

CLASSES, WHOLE = Whole(1), Whole()


class Pairs(NamedTuple):
    """Indices of two samples each, and whether they are of one class.

    Attributes:
        first: ``(P,)``.
        second: ``(P,)``, larger than ``first`` element by element.
        same: ``(P,)``, True where both samples have the same class.
    """

    first: Tensor
    second: Tensor
    same: Tensor


class Triplets(NamedTuple):
    """Indices of samples: an anchor, one of its class and one of another.

    Attributes:
        anchor: ``(T,)``.
        positive: ``(T,)``.
        negative: ``(T,)``.
    """

    anchor: Tensor
    positive: Tensor
    negative: Tensor


def one_hot(
    index: Tensor, *, classes: int, dim: int = 1, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Class indices as rows with a single 1.

    Args:
        index: Class indices, ``(N, *)``, an integer dtype, in ``[0, classes - 1]``.
        classes: Number of classes C, ``>= 1``.
        dim: Where the class dimension goes; 1 is where :func:`lossmith.cross_entropy` wants it.
        dtype: Type of the result.

    Returns:
        ``(N, C, *)``.

    Raises:
        ValueError: If an index lies outside, ``classes < 1`` or there is no such ``dim``.
        TypeError: If ``index`` is not a tensor of integers.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.one_hot(torch.tensor([2, 0]), classes=3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    _integers("index", index)
    CLASSES.check_option("classes", classes)
    _dim(dim, index.ndim + 1)
    require_range(
        "index", f"be a class index in [0, {classes - 1}]", index, low=0, high=classes - 1
    )
    shape = [1] * (index.ndim + 1)
    shape[dim] = classes
    classes_along_dim = torch.arange(classes, device=index.device).view(shape)
    return (index.unsqueeze(dim) == classes_along_dim).to(_dtype(dtype, index))


def class_index(hot: Tensor, *, dim: int = 1) -> Tensor:
    """Rows with a single 1 as class indices; the inverse of :func:`one_hot`.

    Args:
        hot: Zeros and exactly one 1 along ``dim``, ``(N, C, *)``, any dtype.
        dim: The class dimension.

    Returns:
        ``(N, *)``, int64.

    Raises:
        ValueError: If a row holds anything else. Probabilities are refused too: which class they
            mean is a decision, and ``argmax`` states it.
        TypeError: If ``hot`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.class_index(torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        tensor([2, 0])
    """
    _tensor("hot", hot)
    WHOLE.check_option("dim", dim)
    if hot.ndim <= dim:
        fail("hot", f"have a class dimension {dim}", said(f"the shape {tuple(hot.shape)}"))
    _dim(dim, hot.ndim)
    BINARY.check_tensor("hot", hot, {})
    ones = (hot == 1).sum(dim)
    require_all("hot", f"hold exactly one 1 along dimension {dim} (sum of a row)", ones == 1, ones)
    return (hot == 1).to(torch.uint8).argmax(dim)


def multi_hot(lists: Tensor, *, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Padded lists of class indices as rows of zeros and ones.

    Args:
        lists: ``(N, L)`` or ``(L,)``, integers: class indices, then -1 to the end of the row.
        classes: Number of classes C, ``>= 1``.
        dtype: Type of the result.

    Returns:
        ``(N, C)`` or ``(C,)``.

    Raises:
        ValueError: If an index lies outside, appears twice in a row, or follows a -1.
        TypeError: If ``lists`` is not a tensor of integers.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.multi_hot(torch.tensor([[3, 0, -1], [1, -1, -1]]), classes=4)
        tensor([[1., 0., 0., 1.],
                [0., 1., 0., 0.]])
    """
    _integers("lists", lists)
    CLASSES.check_option("classes", classes)
    _rank("lists", lists)
    require_range("lists", f"be in [-1, {classes - 1}]", lists, low=-1, high=classes - 1)
    listed = lists >= 0
    padded_before = (~listed).cumsum(-1) > 0
    require_all("lists", "hold nothing after the first -1", ~(listed & padded_before), lists)
    counts = (lists.unsqueeze(-1) == torch.arange(classes, device=lists.device)).sum(-2)
    require_all("lists", "name each class at most once in a row (count)", counts <= 1, counts)
    return counts.to(_dtype(dtype, counts))


def padded_lists(hot: Tensor) -> Tensor:
    """Rows of zeros and ones as padded lists, in ascending order; undone by :func:`multi_hot`.

    Args:
        hot: Zeros and ones, ``(N, C)`` or ``(C,)``, any dtype.

    Returns:
        The shape of ``hot``, int64: class indices, then -1. This is the ``target`` of
        :func:`lossmith.multilabel_margin_loss`.

    Raises:
        ValueError: If another value appears or the rank is neither 1 nor 2.
        TypeError: If ``hot`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.padded_lists(torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]]))
        tensor([[ 0,  3, -1, -1],
                [-1, -1, -1, -1]])
    """
    _tensor("hot", hot)
    _rank("hot", hot)
    BINARY.check_tensor("hot", hot, {})
    classes = hot.shape[-1]
    # absent classes get an index beyond the last, so that sorting moves them to the end
    indices = torch.where(hot == 1, torch.arange(classes, device=hot.device), classes)
    ordered = indices.sort(-1).values
    return torch.where(ordered == classes, -1, ordered)


def signs(labels: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Labels 0 and 1 as -1 and 1, which margin losses take.

    Args:
        labels: Zeros and ones, ``(*)``, any dtype.
        dtype: Type of the result; None keeps floating point and turns the rest into float32.

    Returns:
        ``(*)``.

    Raises:
        ValueError: If another value appears, -1 included: these may be signs already.
        TypeError: If ``labels`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.signs(torch.tensor([0, 1, 1]))
        tensor([-1.,  1.,  1.])
    """
    _tensor("labels", labels)
    BINARY.check_tensor("labels", labels, {})
    return 2 * labels.to(_dtype(dtype, labels)) - 1


def zero_one(signs: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """Labels -1 and 1 as 0 and 1; the inverse of :func:`signs`.

    Args:
        signs: ``(*)``, -1 or 1, any dtype.
        dtype: Type of the result; None keeps floating point and turns the rest into float32.

    Returns:
        ``(*)``.

    Raises:
        ValueError: If another value appears.
        TypeError: If ``signs`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.zero_one(torch.tensor([-1.0, 1.0]))
        tensor([0., 1.])
    """
    _tensor("signs", signs)
    SIGN.check_tensor("signs", signs, {})
    return (signs > 0).to(_dtype(dtype, signs))


def pairs(labels: Tensor) -> Pairs:
    """All pairs of different samples, each once.

    Args:
        labels: Class of each sample, ``(N,)``, any dtype.

    Returns:
        Indices ``first < second`` and whether the classes agree; ``N (N - 1) / 2`` pairs.

    Raises:
        ValueError: If ``labels`` is not one-dimensional.
        TypeError: If ``labels`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> first, second, same = lossmith.targets.pairs(torch.tensor([7, 7, 8]))
        >>> first, second, same
        (tensor([0, 0, 1]), tensor([1, 2, 2]), tensor([ True, False, False]))
    """
    _vector("labels", labels)
    first, second = torch.triu_indices(len(labels), len(labels), 1, device=labels.device)
    return Pairs(first, second, labels[first] == labels[second])


def triplets(labels: Tensor) -> Triplets:
    """All triplets of an anchor, another sample of its class and a sample of another class.

    Args:
        labels: Class of each sample, ``(N,)``, any dtype.

    Returns:
        Three index tensors in lexicographic order; empty if no class has two samples or there is
        only one class.

    Raises:
        ValueError: If ``labels`` is not one-dimensional.
        TypeError: If ``labels`` is not a tensor.

    Example:
        >>> import torch, lossmith
        >>> lossmith.targets.triplets(torch.tensor([7, 7, 8]))
        Triplets(anchor=tensor([0, 1]), positive=tensor([1, 0]), negative=tensor([2, 2]))
    """
    _vector("labels", labels)
    same = labels.unsqueeze(1) == labels
    others = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    anchor, positive = (same & others).nonzero(as_tuple=True)
    pair, negative = (~same[anchor]).nonzero(as_tuple=True)
    return Triplets(anchor[pair], positive[pair], negative)


def _tensor(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor):
        fail_type(name, "be a tensor", value)


def _integers(name: str, value: Tensor) -> None:
    _tensor(name, value)
    if value.is_floating_point() or value.is_complex() or value.dtype is torch.bool:
        fail_type(name, "be of an integer dtype", value)


def _dtype(dtype: torch.dtype | None, value: Tensor) -> torch.dtype:
    """The type asked for; else that of ``value`` if floating point, else float32."""
    if dtype is None:
        return value.dtype if value.is_floating_point() else torch.float32
    if not isinstance(dtype, torch.dtype):
        fail_type("dtype", "be a torch.dtype", dtype)
    return dtype


def _dim(dim: int, rank: int) -> None:
    WHOLE.check_option("dim", dim)
    if not -rank <= dim < rank:
        fail("dim", f"be in [{-rank}, {rank - 1}]", dim)


def _rank(name: str, value: Tensor) -> None:
    if value.ndim not in (1, 2):
        fail(name, "have the shape (N, C) or (C,)", said(str(tuple(value.shape))))


def _vector(name: str, value: Tensor) -> None:
    _tensor(name, value)
    if value.ndim != 1:
        fail(name, "have the shape (N,)", said(str(tuple(value.shape))))
