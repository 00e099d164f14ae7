"""The page of errata is what its code prints, and its numbers are those worked out by hand."""

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch

LESSONS = Path(__file__).parents[1] / "docs" / "lessons"
NAN = math.nan

# (wrong, right); a type stands for the error it must end in
NUMBERS = {
    "mean-by-rows": (3.0, 1.0),
    "empty-mean": (NAN, 0.0),
    "tensors-to-constructor": (RuntimeError, 1.0),
    "integer-tensors": (RuntimeError, 1.0),
    "root-gradient": ([NAN, NAN], [0.0, 0.0]),
    "absolute-sum": (3.0, 1.5),
    "sum-for-mean-squares": (4.0, 2.0),
    "one-term-too-many": (4 / 3, 1.0),
    "masked-logit": (NAN, 1.3133),
    "ignored-label": (RuntimeError, 1.0986),
    "double-softmax": (0.5514, 0.0),
    "kl-zero": (NAN, 0.6931),
    "kl-zero-division": (ZeroDivisionError, math.inf),
    "kl-negative": (-0.2773, 0.0487),
    "kl-not-normalised": (0.3636, 0.2352),
    "kl-asymmetric": ([0.3636, 0.1740], None),
    "cross-entropy-of-unnormalised": (1.0942, 0.9947),
    "cross-entropy-floor": (0.0, 0.7595),
    "softmax-overflow": ([NAN, 0.0], [1.0, 0.0]),
    "softmax-dimension": ([2.0, 2.0], [1.0, 1.0]),
    "softmax-loss-sign": (-0.1269, 0.1269),
    "zero-one-swapped": (1.0, 0.0),
    "kldiv-of-probabilities": (-1.0006, 0.3553),
    "kldiv-mean-of-probabilities": (-0.3335, 0.1184),
    "kldiv-check-by-hand": (-0.5448, 0.5290),
    "poisson-log": (ValueError, 2.3679),
    "negative-counts": (2.2987, ValueError),
    "ranking-zero": (0.0, 0.8),
    "ranking-broadcast": (1 / 3, [1.0, 0.0, 1.0]),
    "multilabel-bracket": (0.30, 0.85),
    "multilabel-rivals": (1.35, 0.85),
    "soft-margin-overflow": (math.inf, 100.0),
    "soft-margin-gradient": ([NAN], [-1.0]),
    "log-of-sigmoid": (NAN, 0.0),
    "cosine-target-shape": (RuntimeError, 0.5),
    "balanced-cross-entropy": ([0.6931, 0.6931], [0.1733, 0.5199]),
}


@pytest.fixture(scope="module")
def errata() -> ModuleType:
    spec = importlib.util.spec_from_file_location("errata", LESSONS / "errata.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_lesson_has_numbers(errata: ModuleType) -> None:
    assert [lesson.key for lesson in errata.LESSONS] == list(NUMBERS)


@pytest.mark.parametrize("key", NUMBERS)
def test_numbers_are_those_worked_out_by_hand(errata: ModuleType, key: str) -> None:
    lesson = next(lesson for lesson in errata.LESSONS if lesson.key == key)
    for code, expected in zip((lesson.wrong, lesson.right), NUMBERS[key], strict=True):
        value = errata.run(code)
        if expected is None:
            assert not isinstance(value, Exception)
        elif isinstance(expected, type):
            assert isinstance(value, expected), f"{code} gave {value!r}"
        else:
            found = torch.as_tensor(value, dtype=torch.float64)
            wanted = torch.tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(found, wanted, atol=6e-5, rtol=0, equal_nan=True)


def test_page_is_current(errata: ModuleType) -> None:
    assert (LESSONS / "errata.md").read_text() == errata.page()
