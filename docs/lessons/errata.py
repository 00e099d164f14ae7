"""Write docs/lessons/errata.md: mistakes of course notes on losses, run and corrected.

Each lesson holds code, not numbers: what the notes do, and what is right. The page shows what the
code prints now; ``tests/test_errata.py`` compares the page with a fresh run, and the numbers with
those worked out by hand. Run: ``python docs/lessons/errata.py [--check]``.
"""

import functools
import inspect
import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import lossmith as lm

PAGE = Path(__file__).with_name("errata.md")
INTRO = """# Errata

Mistakes that course notes on loss functions make, run as they stand and then corrected. Generated
by `python docs/lessons/errata.py`; every value below is printed by the code beside it, after this:

```python
{preamble}
```
"""
TENSORS = {
    "t": "torch.tensor",
    "px": "t([[0.1, 0.2, 0.8]])",
    "py": "t([[0.3, 0.3, 0.4]])",
    "p": "t([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])",
    "q": "t([[0.9, 0.05, 0.05], [0.1, 0.7, 0.2]])",
    "x1": "t([1.0, 2.0, 3.0])",
    "x2": "t([2.0, 2.0, 2.0])",
    "y": "t([1.0, 1.0, -1.0])",
    "scores": "t([0.1, 0.2, 0.4, 0.8])",
    "classes": "t([3, 0, -1, 1])",
}


@dataclass(frozen=True)
class Lesson:
    """One mistake.

    Attributes:
        key: Name, for the test.
        title: What the notes say or do.
        why: What is wrong with it.
        wrong: Expression that does it.
        right: Expression that does it right.
    """

    key: str
    title: str
    why: str
    wrong: str
    right: str


LESSONS = (
    Lesson(
        "mean-by-rows",
        "The mean squared error divides by `len(x)`",
        "`len` counts rows. For two rows of three the sum is divided by 2 instead of 6.",
        "sum(((np.ones((2, 3)) - np.zeros((2, 3))) ** 2).ravel()) / len(np.ones((2, 3)))",
        "lm.mse_loss(torch.ones(2, 3), torch.zeros(2, 3))",
    ),
    Lesson(
        "empty-mean",
        "The mean of no errors is left to the division",
        "0/0 is NaN, and one empty batch spoils an epoch. The mean over nothing counts 0.",
        "F.mse_loss(torch.zeros(0), torch.zeros(0))",
        "lm.mse_loss(torch.zeros(0), torch.zeros(0))",
    ),
    Lesson(
        "tensors-to-constructor",
        "`nn.MSELoss(y_true, y_pred)`",
        "The constructor takes options. Build the loss first, then call it with input and target.",
        "torch.nn.MSELoss(t([1.0, 2.0]), t([0.0, 1.0]))",
        "lm.MSELoss()(t([1.0, 2.0]), t([0.0, 1.0]))",
    ),
    Lesson(
        "integer-tensors",
        "Losses of integer tensors",
        "A prediction is a floating-point number.",
        "F.mse_loss(t([1, 2]), t([0, 1]))",
        "lm.mse_loss(t([1.0, 2.0]), t([0.0, 1.0]))",
    ),
    Lesson(
        "root-gradient",
        "The root of the mean squared error is differentiable",
        "Not at zero error, where the plain root has the slope 0 x infinity. The subgradient is 0.",
        "slope(lambda x: F.mse_loss(x, torch.ones(2)).sqrt(), torch.ones(2))",
        "slope(lambda x: lm.rmse_loss(x, torch.ones(2)), torch.ones(2))",
    ),
    Lesson(
        "absolute-sum",
        "The L1 formula is a sum under the title of a mean",
        "The mean absolute error divides by the number of elements.",
        "lm.l1_loss(t([1.0, 3.0]), t([0.0, 1.0]), reduction='sum')",
        "lm.l1_loss(t([1.0, 3.0]), t([0.0, 1.0]))",
    ),
    Lesson(
        "sum-for-mean-squares",
        'The mean squared error "is the sum of squares"',
        "It is their mean; the sum grows with the batch.",
        "lm.mse_loss(t([3.0, 1.0]), t([1.0, 1.0]), reduction='sum')",
        "lm.mse_loss(t([3.0, 1.0]), t([1.0, 1.0]))",
    ),
    Lesson(
        "one-term-too-many",
        "A mean written as 1/N times the sum from i = 0 to N",
        "That is N + 1 terms: the mean of three ones would be 4/3.",
        "sum(1.0 for i in range(0, 3 + 1)) / 3",
        "sum(1.0 for i in range(1, 3 + 1)) / 3",
    ),
    Lesson(
        "masked-logit",
        "`-one_hot * log_probs`",
        "A masked logit has log-probability -inf, and 0 x -inf is NaN.",
        "(-t([[0.0, 1.0, 0.0]]) * torch.log_softmax(t([[1.0, 0.0, -math.inf]]), 1)).sum()",
        "lm.cross_entropy(t([[1.0, 0.0, -math.inf]]), t([[0.0, 1.0, 0.0]]))",
    ),
    Lesson(
        "ignored-label",
        "No `ignore_index`",
        "The label -100, which marks a sample without a label, is looked up as a class.",
        "torch.log_softmax(torch.zeros(2, 3), 1).gather(1, t([[0], [-100]]))",
        "lm.cross_entropy(torch.zeros(2, 3), t([0, -100]))",
    ),
    Lesson(
        "double-softmax",
        "Probabilities handed to a loss that wants logits",
        "A second softmax flattens them: a certain, right prediction still costs 0.55.",
        "lm.cross_entropy(t([[1.0, 0.0, 0.0]]), t([0]))",
        "lm.cross_entropy(t([[30.0, 0.0, 0.0]]), t([0]))",
    ),
    Lesson(
        "kl-zero",
        "`y * log(y / f)` with y = 0",
        "0 x log 0 is 0 by its limit; computed, it is NaN.",
        "np.sum(np.array([0.0, 1.0]) * np.log(np.array([0.0, 1.0]) / np.array([0.5, 0.5])))",
        "lm.kl_div(t([[0.5, 0.5]]).log(), t([[0.0, 1.0]]), reduction='sum')",
    ),
    Lesson(
        "kl-zero-division",
        "`y * log(y / f)` with f = 0",
        "The divergence is infinite, which is a value; Python raises instead.",
        "0.5 * math.log(0.5 / 0.0)",
        "lm.kl_div(t([[0.0, 1.0]]).log(), t([[0.5, 0.5]]), reduction='sum')",
    ),
    Lesson(
        "kl-negative",
        "The KL divergence is never negative, shown on [0.1, 0.2, 0.3]",
        "It is so only between distributions; these numbers sum to 0.6.",
        "lm.kl_div(py.log(), t([[0.1, 0.2, 0.3]]), reduction='sum')",
        "lm.kl_div(py.log(), t([[0.1, 0.2, 0.3]]) / 0.6, reduction='sum')",
    ),
    Lesson(
        "kl-not-normalised",
        "The example distribution [0.1, 0.2, 0.8] sums to 1.1",
        "Normalised, its divergence from [0.3, 0.3, 0.4] is a third smaller.",
        "lm.kl_div(py.log(), px, reduction='sum')",
        "lm.kl_div(py.log(), px / px.sum(), reduction='sum')",
    ),
    Lesson(
        "kl-asymmetric",
        "The KL divergence measures a distance",
        "Swapping the two changes it. The root of the Jensen-Shannon divergence is a distance.",
        "[lm.kl_div(py.log(), px, reduction='sum'), lm.kl_div(px.log(), py, reduction='sum')]",
        "[lm.js_distance_loss(py, px / 1.1), lm.js_distance_loss(px / 1.1, py)]",
    ),
    Lesson(
        "cross-entropy-of-unnormalised",
        "The cross-entropy of the same unnormalised example",
        "Normalised it is 0.9947; its smallest possible value is the entropy 0.7595, not 0.",
        "-(px * py.log()).sum()",
        "lm.cross_entropy(py.log(), px / px.sum())",
    ),
    Lesson(
        "cross-entropy-floor",
        "Cross-entropy reaches 0 when prediction and target agree",
        "With soft targets the floor is their entropy.",
        "0.0",
        "lm.cross_entropy((px / px.sum()).log(), px / px.sum())",
    ),
    Lesson(
        "softmax-overflow",
        "Softmax without subtracting the maximum",
        "exp(1000) overflows.",
        "np.exp([1000.0, 0.0]) / np.exp([1000.0, 0.0]).sum()",
        "lm.softmax(t([1000.0, 0.0]), dim=-1)",
    ),
    Lesson(
        "softmax-dimension",
        "`nn.Softmax()` without `dim`",
        "Three dimensions make it pick the first: the classes do not sum to 1.",
        "torch.nn.Softmax()(torch.zeros(2, 1, 4)).sum(-1).flatten()",
        "lm.softmax(torch.zeros(2, 1, 4), dim=-1).sum(-1).flatten()",
    ),
    Lesson(
        "softmax-loss-sign",
        "The softmax loss as the sum of p log S",
        "The minus sign is lost; the value falls as the prediction gets worse.",
        "(t([1.0, 0.0]) * torch.log_softmax(t([2.0, 0.0]), 0)).sum()",
        "lm.cross_entropy(t([2.0, 0.0]), t(0))",
    ),
    Lesson(
        "zero-one-swapped",
        "The 0-1 loss is 1 where prediction and label agree",
        "The cases are swapped: a right prediction costs nothing.",
        "1.0 if t([0.2, 0.8]).argmax() == 1 else 0.0",
        "lm.zero_one_loss(t([0.2, 0.8]), t(1))",
    ),
    Lesson(
        "kldiv-of-probabilities",
        "`KLDivLoss` called with probabilities",
        "It wants log-probabilities. A negative divergence is the sign that something is wrong.",
        "F.kl_div(p, q, reduction='batchmean')",
        "lm.kl_div(p.log(), q, reduction='batchmean')",
    ),
    Lesson(
        "kldiv-mean-of-probabilities",
        "The same under `reduction='mean'`",
        "This mean divides by all elements, and so is not the mean divergence of a row either.",
        "quiet(lambda: F.kl_div(p, q))",
        "lm.kl_div(p.log(), q)",
    ),
    Lesson(
        "kldiv-check-by-hand",
        "The check by hand repeats the mistake, and agrees",
        "A check that copies the formula cannot find the error in it.",
        "q[0, 0] * (q[0, 0].log() - p[0, 0])",
        "q[0, 0] * (q[0, 0].log() - p[0, 0].log())",
    ),
    Lesson(
        "poisson-log",
        "Poisson loss: rate - y log(rate), and the rate must be positive",
        "By default the input is the log-rate, any real number: exp(x) - y x.",
        "(lambda rate, y: rate - y * math.log(rate))(-1.0, 2.0)",
        "lm.poisson_nll_loss(t([-1.0]), t([2.0]))",
    ),
    Lesson(
        "negative-counts",
        "Counts drawn from a normal distribution",
        "torch takes negative counts without a word; the loss has no minimum then.",
        "F.poisson_nll_loss(t([0.5]), t([-1.3]))",
        "lm.poisson_nll_loss(t([0.5]), t([-1.3]))",
    ),
    Lesson(
        "ranking-zero",
        '"If |x1 - x2| < margin the loss is zero"',
        "It is zero if y (x1 - x2) >= margin. A lead of 0.2 under a margin of 1 costs 0.8.",
        "0.0 if abs(0.2 - 0.0) < 1 else 1.0",
        "lm.margin_ranking_loss(t([0.2]), t([0.0]), t([1.0]), margin=1.0)",
    ),
    Lesson(
        "ranking-broadcast",
        "Scores of shape (3, 1) against labels of shape (3)",
        "Broadcast, three pairs become nine and the values are not those of the pairs.",
        "torch.relu(-y * (x1[:, None] - x2[:, None])).mean()",
        "lm.margin_ranking_loss(x1, x2, y, reduction='none')",
    ),
    Lesson(
        "multilabel-bracket",
        "`max(0, 1 - x[j] - x[i])` for the multi-label margin",
        "A bracket is misplaced: it is 1 - (x[j] - x[i]).",
        "pairs(lambda j, i: 1 - scores[j] - scores[i], {3, 0})",
        "lm.multilabel_margin_loss(scores, classes)",
    ),
    Lesson(
        "multilabel-rivals",
        "The inner loop runs over all classes but j",
        "It runs over the classes that are not true at all; true ones are no rivals.",
        "pairs(lambda j, i: 1 - (scores[j] - scores[i]), {3, 0}, among_true=True)",
        "lm.multilabel_margin_loss(scores, classes)",
    ),
    Lesson(
        "soft-margin-overflow",
        "Soft margin as `log(1 + exp(-y x))`",
        "The exponential overflows from 89 on in float32; the loss is about 100.",
        "F.soft_margin_loss(t([-100.0]), t([1.0]))",
        "lm.soft_margin_loss(t([-100.0]), t([1.0]))",
    ),
    Lesson(
        "soft-margin-gradient",
        "The gradient of the same at -1000",
        "inf/inf is NaN; the slope is -1.",
        "slope(lambda x: F.soft_margin_loss(x, t([1.0])), t([-1000.0]))",
        "slope(lambda x: lm.soft_margin_loss(x, t([1.0])), t([-1000.0]))",
    ),
    Lesson(
        "log-of-sigmoid",
        "`log(exp(-x) / (1 + exp(-x)))`",
        "inf/inf at x = -200; the value is the log-sigmoid of 200, which is 0.",
        "torch.log(torch.exp(t(200.0)) / (1 + torch.exp(t(200.0))))",
        "F.logsigmoid(t(200.0))",
    ),
    Lesson(
        "cosine-target-shape",
        "Cosine embedding with a target of shape (1, 2)",
        "One label per pair of vectors: the shape is (2).",
        "F.cosine_embedding_loss(torch.ones(2, 3), torch.ones(2, 3), t([[1.0, -1.0]]))",
        "lm.cosine_embedding_loss(torch.ones(2, 3), torch.ones(2, 3), t([1.0, -1.0]))",
    ),
    Lesson(
        "balanced-cross-entropy",
        "Balanced cross-entropy is given as a formula without code",
        "Without the balance both sides weigh alike; `alpha` is its name.",
        "lm.binary_cross_entropy_with_logits(t([0.0, 0.0]), t([1.0, 0.0]), reduction='none')",
        "lm.binary_cross_entropy_with_logits("
        "t([0.0, 0.0]), t([1.0, 0.0]), alpha=0.25, reduction='none')",
    ),
)


def slope(function: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """Gradient of a loss."""
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(function(leaf), leaf)[0]


def pairs(
    cost: Callable[[int, int], torch.Tensor], true: set[int], *, among_true: bool = False
) -> torch.Tensor:
    """The double sum of a multi-label margin, divided by the number of classes."""
    rivals = [(j, i) for j in true for i in range(4) if i != j and (among_true or i not in true)]
    return sum((cost(j, i).clamp(min=0) for j, i in rivals), torch.zeros(())) / 4


def quiet(call: Callable[[], Any]) -> Any:
    """A call whose warning is the point of another lesson."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


HELPERS = (slope, pairs, quiet)


@functools.cache
def _names() -> dict[str, Any]:
    """What the lessons may use."""
    names: dict[str, Any] = {"np": np, "torch": torch, "F": F, "lm": lm, "math": math}
    for name, code in TENSORS.items():
        names[name] = eval(code, names)
    return names | {helper.__name__: helper for helper in HELPERS}


def _preamble() -> str:
    """The same as code for the reader."""
    imports = "import math\nimport warnings\nfrom collections.abc import Callable\n"
    imports += "from typing import Any\n\nimport lossmith as lm\nimport numpy as np\nimport torch\n"
    imports += "from torch.nn import functional as F\n"
    tensors = "\n".join(f"{name} = {code}" for name, code in TENSORS.items())
    helpers = "\n\n".join(inspect.getsource(helper).rstrip() for helper in HELPERS)
    return f"{imports}\n{tensors}\n\n{helpers}"


def run(code: str) -> Any:
    """Value of an expression, or the error it ends in."""
    names = _names()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return eval(code, names)
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            return error


def text(value: Any) -> str:
    """A value as the page shows it: four digits, errors by their first sentence."""
    if isinstance(value, Exception):
        first = str(value).strip().split("\n")[0]
        return f"{type(value).__name__}: {first[:90]}"
    if isinstance(value, list):
        return f"[{', '.join(text(part) for part in value)}]"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return text(value.tolist())
    return f"{value + 0.0:.4f}"


def page() -> str:
    """The whole page."""
    sections = [
        f"## {lesson.title}\n\n{lesson.why}\n\n"
        f"```python\n{lesson.wrong}\n# wrong: {text(run(lesson.wrong))}\n\n"
        f"{lesson.right}\n# right: {text(run(lesson.right))}\n```\n"
        for lesson in LESSONS
    ]
    return "\n".join([INTRO.format(preamble=_preamble()), *sections])


def main() -> int:
    """Write the page, or with ``--check`` say whether it is stale."""
    if "--check" in sys.argv:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
