"""The workbench: which loss serves your data and your metric, and how sure can one be.

Needs the extra ``lab``: ``pip install "lossmith[lab]"``.
"""

try:
    import pandas as _pandas  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import scipy as _scipy  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import sklearn as _sklearn  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as _error:
    raise ImportError(f"lossmith.choose needs pip install 'lossmith[lab]': {_error}") from None

from lossmith.choose.diagnosis import Diagnosis
from lossmith.choose.errors import DataError, OutsideDomain
from lossmith.choose.result import Choice
from lossmith.choose.run import choose, diagnose, tournament
from lossmith.choose.suite import Suite, collect
from lossmith.choose.verdict import TournamentFailed

__all__ = [
    "Choice",
    "DataError",
    "Diagnosis",
    "OutsideDomain",
    "Suite",
    "TournamentFailed",
    "choose",
    "collect",
    "diagnose",
    "tournament",
]
