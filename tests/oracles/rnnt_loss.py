"""RNN-T by a walk over (steps read, symbols emitted): a memoised sum of products of probabilities.

Graves 2012, section 2.3: an alignment emits, for each step, some symbols and then a blank.
"""

from functools import cache

from mpmath import mp


def rnnt_loss(logits, targets, logit_lengths, target_lengths, blank=0):
    return [
        _one(grid, labels[:symbols], steps, blank)
        for grid, labels, steps, symbols in zip(
            logits, targets, logit_lengths, target_lengths, strict=True
        )
    ]


def _one(grid, labels, steps, blank):
    with mp.workdps(60):

        def probability(step, read, symbol):
            row = [mp.exp(v) for v in grid[step][read]]
            return row[symbol] / mp.fsum(row)

        @cache
        def rest(step, read):
            """Probability of emitting what is left in the steps that are left."""
            if step == steps:
                return mp.mpf(read == len(labels))
            total = probability(step, read, blank) * rest(step + 1, read)
            if read < len(labels):
                total += probability(step, read, labels[read]) * rest(step, read + 1)
            return total

        return -mp.log(rest(0, 0))
