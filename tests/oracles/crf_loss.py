"""Linear-chain CRF by its definition: a probability among all labellings, at 60 digits.

Lafferty, McCallum & Pereira 2001: products of factors of classes and of pairs of classes. The sum
over the labellings of a sequence is taken class by class, not in logarithms.
"""

from mpmath import mp


def crf_loss(input, target, lengths, transitions, start=None, end=None):
    with mp.workdps(60):
        return [
            _one(scores[:steps], labels[:steps], transitions, start, end)
            for scores, labels, steps in zip(input, target, lengths, strict=True)
        ]


def _one(scores, labels, transitions, start, end):
    classes = range(len(transitions))
    first = [mp.exp(v) for v in start] if start else [mp.one for _ in classes]
    final = [mp.exp(v) for v in end] if end else [mp.one for _ in classes]

    def follow(step, label):
        """Sum of the products of all that may come behind this class at this step."""
        if step == len(scores) - 1:
            return final[label]
        return mp.fsum(
            mp.exp(transitions[label][k] + scores[step + 1][k]) * table[step + 1][k]
            for k in classes
        )

    table = [None] * len(scores)
    for step in reversed(range(len(scores))):
        table[step] = [follow(step, label) for label in classes]
    total = mp.fsum(first[k] * mp.exp(scores[0][k]) * table[0][k] for k in classes)
    own = first[labels[0]] * final[labels[-1]]
    for step, label in enumerate(labels):
        own *= mp.exp(scores[step][label])
        if step:
            own *= mp.exp(transitions[labels[step - 1]][label])
    return -mp.log(own / total)
