"""Losses of sequences: CTC from logits."""

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

import lossmith as lm
from lossmith.bench.limits import Work
from lossmith.bench.row import Draw, Family, Loss, Row, of, package


def make(draw: Draw, T: int, N: int, C: int, S: int) -> tuple[Tensor, ...]:
    """Logits, symbols, and lengths that differ."""
    symbols = draw.whole(1, C, N, S)
    return draw.normal(T, N, C), symbols, draw.whole(2 * S, T + 1, N), draw.whole(1, S + 1, N)


def full(draw: Draw, T: int, N: int, C: int, S: int) -> tuple[Tensor, ...]:
    """The same where no sample ends before the last step, nor has fewer symbols."""
    logits, symbols, steps, counts = make(draw, T, N, C, S)
    return logits, symbols, torch.full_like(steps, T), torch.full_like(counts, S)


def ctc(logits: Tensor, targets: Tensor, input_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """From log-probabilities, as torch wants them."""
    return F.ctc_loss(logits.log_softmax(-1), targets, input_lengths, target_lengths)


def joint(draw: Draw, N: int, T: int, U: int, V: int) -> tuple[Tensor, ...]:
    """Logits of a joint network, symbols, and lengths that differ."""
    symbols, steps = draw.whole(1, V, N, U), draw.whole(T // 2, T + 1, N)
    return draw.normal(N, T, U + 1, V), symbols, steps, draw.whole(U // 2, U + 1, N)


def rnnt(logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """The recursion over steps; within a step, emissions add up along the symbols."""
    log_p = logits.log_softmax(-1)
    blank = log_p[..., 0]
    place = targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    emitted = F.pad(log_p[:, :, :-1].gather(-1, place).squeeze(-1).cumsum(-1), (1, 0))
    state = emitted[:, 0]
    states = [state]
    for step in range(1, logits.shape[1]):
        arrived = state + blank[:, step - 1] - emitted[:, step]
        state = arrived.logcumsumexp(-1) + emitted[:, step]
        states.append(state)
    rows, last = torch.arange(len(logits), device=logits.device), logit_lengths - 1
    final = torch.stack(states, 1)[rows, last, target_lengths]
    return -(final + blank[rows, last, target_lengths]).mean()


def torchaudio() -> Loss:
    """Of torchaudio, which wants 32-bit integers."""
    loss = package("torchaudio.functional").rnnt_loss
    return lambda logits, *rest: loss(logits, *(t.int() for t in rest), blank=0)


def work_of_joint(s: int, N: int, T: int, U: int, V: int) -> Work:
    """Read logits and write gradients."""
    return Work(bytes=2.0 * s * N * T * (U + 1) * V)


def work(s: int, T: int, N: int, C: int, S: int) -> Work:
    """Read logits and write gradients; write and read the states of the lattice in float32."""
    return Work(bytes=2.0 * s * T * N * C + 8.0 * T * N * (2 * S + 1))


ctc_row = functools.partial(
    Row, ours=lm.ctc_with_logits_loss, peers={"torch": of(ctc)}, truth=ctc, work=work
)
# A line of text or a few seconds of speech
sized = functools.partial(
    ctc_row,
    small=({"T": 12, "N": 3, "C": 5, "S": 4},),
    cpu=({"T": 200, "N": 16, "C": 64, "S": 40},),
    gpu=(
        {"T": 512, "N": 32, "C": 64, "S": 64},
        {"T": 1000, "N": 32, "C": 128, "S": 100},
        {"T": 1600, "N": 64, "C": 5000, "S": 120},
    ),
)

FAMILY = Family(
    "sequence",
    "Sequences",
    "From logits; torch's kernel of CTC takes log-probabilities, and the log-softmax is part of "
    "its time. The transducer in torch calls walks step by step.",
    (
        sized("CTC", make=full),
        sized("CTC of ragged lengths", make=make),
        Row(
            "RNN-T",
            make=joint,
            ours=lm.rnnt_loss,
            peers={"torch": of(rnnt), "torchaudio": torchaudio},
            truth=rnnt,
            work=work_of_joint,
            small=({"N": 2, "T": 6, "U": 4, "V": 5},),
            cpu=({"N": 4, "T": 100, "U": 30, "V": 128},),
            gpu=(
                {"N": 8, "T": 400, "U": 100, "V": 500},
                {"N": 8, "T": 400, "U": 100, "V": 4000},
                {"N": 32, "T": 400, "U": 100, "V": 500},
            ),
        ),
        ctc_row(
            "CTC by length",
            make=make,
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
