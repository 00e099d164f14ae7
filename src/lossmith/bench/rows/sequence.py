"""Losses of sequences: CTC from logits."""

from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Row, of


def make(draw: Draw, T: int, N: int, C: int, S: int) -> tuple[Tensor, ...]:
    """Logits, symbols, and lengths that differ."""
    symbols = draw.whole(1, C, N, S)
    return draw.normal(T, N, C), symbols, draw.whole(2 * S, T + 1, N), draw.whole(1, S + 1, N)


def ctc(logits: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """From log-probabilities, as torch wants them."""
    return F.ctc_loss(logits.log_softmax(-1), targets, input_lengths, target_lengths)


def work(s: int, T: int, N: int, C: int, S: int) -> Work:
    """Read logits and write gradients; write and read the states of the lattice in float32."""
    return Work(bytes=2.0 * s * T * N * C + 8.0 * T * N * (2 * S + 1))


FAMILY = Family(
    "sequence",
    "Sequences",
    "From logits; torch's kernel takes log-probabilities, and the log-softmax is part of its time.",
    (
        Row(
            "CTC",
            make=make,
            ours=lm.ctc_with_logits_loss,
            peers={"torch": of(ctc)},
            truth=ctc,
            work=work,
            small=({"T": 12, "N": 3, "C": 5, "S": 4},),
            cpu=({"T": 200, "N": 16, "C": 64, "S": 40},),
            gpu=(
                {"T": 512, "N": 32, "C": 64, "S": 64},
                {"T": 1000, "N": 32, "C": 128, "S": 100},
                {"T": 1600, "N": 64, "C": 5000, "S": 120},
            ),
        ),
        Row(
            "CTC by length",
            make=make,
            ours=lm.ctc_with_logits_loss,
            peers={"torch": of(ctc)},
            truth=ctc,
            work=work,
            small=tuple({"T": steps, "N": 3, "C": 5, "S": 4} for steps in (8, 12, 16)),
            cpu=tuple({"T": steps, "N": 8, "C": 64, "S": 20} for steps in (50, 100, 200, 400)),
            gpu=tuple({"T": steps, "N": 32, "C": 64, "S": 50} for steps in (128, 256, 512, 1024)),
            grows=True,
        ),
    ),
    options={
        "from logits": "lossmith",
        "from log-probabilities": "lossmith torch",
        "blank": "lossmith torch",
        "zero_infinity": "lossmith torch",
        "sample_weight": "lossmith",
        "reduction none": "lossmith torch",
        "double backward": "lossmith",
    },
)
