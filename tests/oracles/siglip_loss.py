"""Sigmoid loss from Zhai et al. 2023, pair by pair; the bias enters as in their pseudocode."""

from mpmath import mp


def siglip_loss(image, text, temperature=0.1, bias=-10.0):
    with mp.workdps(60):
        return [
            -mp.fsum(
                mp.log(_probability(_cosine(x, y) / temperature + bias, i == j))
                for j, y in enumerate(text)
            )
            for i, x in enumerate(image)
        ]


def _probability(score, match):
    return 1 / (1 + mp.exp(-score)) if match else 1 / (1 + mp.exp(score))


def _cosine(x, y):
    dot = mp.fsum(a * b for a, b in zip(x, y, strict=True))
    return dot / (mp.norm(x, 2) * mp.norm(y, 2))
