"""What a reproduction declares, and how its claims are judged.

Settings and accepted ranges are written down before anything is measured. A range that belongs to a
size of effect reaches from half to twice what a first small check of the finding gave: the data
here are not the paper's, so its own numbers are shown beside ours, not compared digit by digit.
"""

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from scipy import stats

Tick = Callable[[float], None]
PACKAGES = ("lossmith", "torch", "numpy", "scipy", "scikit-learn")


@dataclass(frozen=True)
class Claim:
    """One number that must come out in a range.

    Attributes:
        name: Key of the measured values.
        what: What the number is, with its unit.
        low: Least accepted mean over the seeds.
        high: Largest accepted mean.
        neutral: The value that would mean no effect: the 95 % interval of the mean must lie on the
            side of it where the range is. None if the range alone decides.
    """

    name: str
    what: str
    low: float
    high: float
    neutral: float | None = None


@dataclass(frozen=True)
class Measured:
    """What an experiment found.

    Attributes:
        values: For each claim one value of each seed, or a single value where nothing is random.
        beside: Other figures worth a look, by name.
    """

    values: Mapping[str, Sequence[float]]
    beside: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Reproduction:
    """One published finding and the experiment that tests it.

    Attributes:
        name: Name on the command line.
        finding: What was found, in a sentence.
        source: Author, year, identifier.
        published: Setting and numbers of the source.
        setting: Data, model and training of the experiment.
        losses: The losses compared, by name.
        metric: What they are judged by.
        seeds: Number of seeds: 0, 1, and so on.
        claims: What must come out.
        measure: ``measure(seeds, tick)`` runs the experiment; ``tick`` takes the share that is
            done.
        remark: What a reader of the outcome should know, such as why it does not hold.
    """

    name: str
    finding: str
    source: str
    published: str
    setting: str
    losses: tuple[str, ...]
    metric: str
    seeds: int
    claims: tuple[Claim, ...]
    measure: Callable[[Sequence[int], Tick], Measured]
    remark: str = ""


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured.

    Attributes:
        claim: The claim.
        mean: Mean over the seeds.
        low: Lower end of the 95 % interval of the mean (Student's t over seeds).
        high: Upper end of it.
        held: Whether the claim holds.
    """

    claim: Claim
    mean: float
    low: float
    high: float
    held: bool

    @property
    def sentence(self) -> str:
        """The numbers in words."""
        claim = self.claim
        interval = "" if self.low == self.high else f" ({self.low:.3g} to {self.high:.3g})"
        word = "held" if self.held else "NOT held"
        wanted = f"expected {claim.low:.3g} to {claim.high:.3g}"
        return f"{word}: {claim.what}: {self.mean:.4g}{interval}, {wanted}"


@dataclass(frozen=True)
class Outcome:
    """A reproduction that was run.

    Attributes:
        reproduction: What was declared.
        findings: One for each claim.
        beside: Other figures, by name.
        seconds: How long it took by the clock.
        worked: Seconds of processor time, over all threads.
    """

    reproduction: Reproduction
    findings: tuple[Finding, ...]
    beside: Mapping[str, float]
    seconds: float
    worked: float

    @property
    def held(self) -> bool:
        """Whether every claim holds."""
        return all(finding.held for finding in self.findings)

    @property
    def line(self) -> str:
        """The outcome in one line."""
        count = sum(finding.held for finding in self.findings)
        word = "held" if self.held else "NOT held"
        claims = f"{count} of {len(self.findings)} claims in range"
        return f"{self.reproduction.name}: {word}, {claims}, {self.seconds:.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data for JSON; a number that is not finite is None."""
        about = self.reproduction
        names = ("name", "finding", "source", "published", "setting", "metric", "seeds", "remark")
        return {
            **{name: getattr(about, name) for name in names},
            "losses": list(about.losses),
            "held": self.held,
            "seconds": round(self.seconds, 1),
            "processor_seconds": round(self.worked, 1),
            "claims": [
                {
                    **vars(one.claim),
                    "measured": _finite(one.mean),
                    "interval": [_finite(one.low), _finite(one.high)],
                    "held": one.held,
                }
                for one in self.findings
            ],
            "beside": {name: _finite(value) for name, value in self.beside.items()},
        }


def judge(claim: Claim, values: Sequence[float]) -> Finding:
    """Compare the values of the seeds with the claim.

    Example:
        >>> judge(Claim("gain", "gain", 1.0, 4.0, neutral=0.0), [1.9, 2.0, 2.1]).held
        True
        >>> judge(Claim("gain", "gain", 1.0, 4.0, neutral=0.0), [-3.0, 2.0, 7.0]).held
        False
    """
    found = np.asarray(values, dtype=float)
    mean = float(found.mean())
    half = 0.0
    if len(found) > 1:
        error = float(found.std(ddof=1)) / math.sqrt(len(found))
        half = float(stats.t.ppf(0.975, len(found) - 1)) * error
    low, high = mean - half, mean + half
    held = claim.low <= mean <= claim.high  # False for NaN
    if claim.neutral is not None:
        above = claim.low >= claim.neutral
        held = held and (low > claim.neutral if above else high < claim.neutral)
    return Finding(claim, mean, low, high, held)


def run(
    reproduction: Reproduction,
    seeds: Sequence[int] | None = None,
    tick: Tick = lambda share: None,
) -> Outcome:
    """Run an experiment and judge its claims.

    Args:
        reproduction: What to run.
        seeds: Seeds instead of those declared, for a shorter look.
        tick: Called with the share that is done.
    """
    start, working = time.perf_counter(), time.process_time()
    found = reproduction.measure(range(reproduction.seeds) if seeds is None else seeds, tick)
    seconds, worked = time.perf_counter() - start, time.process_time() - working
    tick(1.0)
    findings = tuple(judge(claim, found.values[claim.name]) for claim in reproduction.claims)
    return Outcome(reproduction, findings, found.beside, seconds, worked)


def record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Outcomes with what they depend on: date, hardware, versions."""
    kind = torch.backends.cpu.get_cpu_capability()
    return {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} processors, {platform.machine()} with {kind}",
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{one: version(one) for one in PACKAGES},
        },
        "results": [outcome.to_dict() for outcome in outcomes],
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
