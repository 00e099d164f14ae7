"""Training with other libraries."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossmith.train.estimators import LossClassifier, LossRegressor

__all__ = ["LossClassifier", "LossRegressor"]


def __getattr__(name: str) -> Any:
    """Load the estimators, and scikit-learn with them, at their first use."""
    if name not in __all__:
        raise AttributeError(f"module 'lossmith.train' has no attribute {name!r}", name=name)
    try:
        return getattr(import_module("lossmith.train.estimators"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"lossmith.train.{name} needs pip install 'lossmith[lab]': {error}"
        ) from None
