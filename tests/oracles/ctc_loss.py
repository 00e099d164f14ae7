"""CTC as a probability, not in logs: a walk over (symbols read, last class) by memoised recursion.

Graves et al. 2006, Eq. (3): the probability of a labelling is that of all paths which collapse to
it when repeats are merged and blanks dropped.
"""

from functools import cache

from mpmath import mp


def ctc_loss(log_probs, targets, input_lengths, target_lengths, blank=0, zero_infinity=False):
    if not isinstance(input_lengths, list):
        return _one(log_probs, targets[:target_lengths], input_lengths, blank, zero_infinity)
    return [
        _one(
            [step[n] for step in log_probs],
            targets[n][: target_lengths[n]],
            input_lengths[n],
            blank,
            zero_infinity,
        )
        for n in range(len(targets))
    ]


def _one(log_probs, labels, steps, blank, zero_infinity):
    with mp.workdps(60):
        probs = [[mp.exp(v) for v in step] for step in log_probs[:steps]]

        @cache
        def rest(step, read, last):
            """Probability that the steps from here on complete the labels."""
            if step == len(probs):
                return mp.mpf(read == len(labels))
            total = mp.zero
            for symbol, p in enumerate(probs[step]):
                if symbol in (blank, last):
                    total += p * rest(step + 1, read, symbol)
                elif read < len(labels) and symbol == labels[read]:
                    total += p * rest(step + 1, read + 1, symbol)
            return total

        probability = rest(0, 0, None)
        if probability == 0:
            return mp.zero if zero_infinity else mp.inf
        return -mp.log(probability)
