"""Features as numbers, fitted inside each cell: nothing of the test rows leaks into training."""

from typing import Any, cast

import numpy as np
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor

from lossmith.choose.data import Table
from lossmith.choose.folds import Cell


def features(table: Table, cell: Cell) -> Tensor:
    """All rows as standardised float32 numbers, ``(rows, width)``; the same width in every cell.

    Medians, means, scales are those of the rows that the cell's network is trained on.
    """
    # an unseen level in a cell is a row of zeros; the list of levels itself is no leak
    levels = [sorted(table.features[column].unique()) for column in table.text]
    transformer = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(
                    SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
                ),
                table.numeric,
            ),
            ("texts", OneHotEncoder(categories=cast(Any, levels), sparse_output=False), table.text),
        ]
    )
    transformer.fit(table.features.iloc[cell.fit])
    columns = np.asarray(transformer.transform(table.features), dtype=np.float32)
    # A column that hardly varies among the training rows must not explode elsewhere.
    return torch.from_numpy(columns.clip(-10.0, 10.0))
