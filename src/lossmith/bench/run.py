"""Rows into documents, one measurement after the other."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import torch

from lossmith.bench import limits, machine, results
from lossmith.bench.clock import clock_for
from lossmith.bench.measure import measure
from lossmith.bench.row import Dims, Family, Row, Scale


class Point(NamedTuple):
    """One measurement to come."""

    row: Row
    dims: Dims
    dtype: torch.dtype


def points(family: Family, scale: Scale) -> list[Point]:
    """Every row in every dtype at every size."""
    return [
        Point(row, dims, dtype)
        for row in family.rows
        for dtype in row.dtypes
        for dims in row.dims(scale)
    ]


def run(
    families: Iterable[Family],
    *,
    device: torch.device,
    scale: Scale,
    seconds: float,
    without: Collection[str] = (),
    starting: Callable[[Point], object] = lambda point: None,
) -> Iterator[dict[str, Any]]:
    """Measure everything.

    Args:
        families: What to measure.
        device: Where.
        scale: At which sizes.
        seconds: For the timing of one row at one size.
        without: Names of peers to leave out.
        starting: Called before each measurement.

    Yields:
        The document of a family after each of its measurements, so that a run cut short leaves
        what it has measured.
    """
    rates, facts = limits.measured(device), machine.facts(device)
    for family in families:
        rows: list[dict[str, Any]] = []
        for point in points(family, scale):
            starting(point)
            found = measure(*point, device=device, limits=rates, seconds=seconds, without=without)
            rows.append(found)
            yield results.document(
                family, rows, machine=facts, clock=clock_for(device).name, limits=rates
            )
