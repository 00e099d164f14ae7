"""scikit-learn estimators: a small network trained with any loss that fits the target.

Needs the extra ``lab``: ``pip install "lossmith[lab]"``.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import assert_all_finite
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from lossmith.core.checks import fail, said
from lossmith.core.module import Loss
from lossmith.core.numerics import softcapped
from lossmith.tabular.coding import AMOUNTS_OF, Coding, Unfit, code_amounts, code_classes, encode
from lossmith.tabular.scale import residual_scale
from lossmith.train.network import NetworkEstimator
from lossmith.train.serving import Part, common, parts
from lossmith.train.units import units

Array = NDArray[Any]


def _predicts_spread(estimator: "LossRegressor") -> bool:
    return any(part.card.tensors[2:] for part in estimator._parts)


class LossRegressor(RegressorMixin, NetworkEstimator):
    """A regression with any loss: a linear model or a small network, as scikit-learn wants it.

    ``predict`` gives what the loss elicits, in the target's unit, by the link of its card: a mean
    for the squared error, a median for the absolute one, a quantile for the pinball loss, and
    ``exp`` of the network's output for losses of counts and positive amounts. A likelihood with a
    spread, as :func:`lossmith.gaussian_nll_loss`, has a second output, which ``predict_spread``
    gives.

    Features are standardised. So is the target where the loss allows it: losses with an inner unit,
    such as ``delta`` of Huber's, measure residuals in the robust standard deviation of a linear
    fit's residuals, as the tournament does, unless ``scale_target`` is False.

    Args:
        loss: A name, function, Module class or Module with reduction ``"mean"``, or a sum of them;
            None is ``"mse_loss"``. Parameters of a Module, such as the shape of
            :class:`lossmith.AdaptiveBarronLoss`, are trained as well.
        loss_params: Options of the loss by name; ``set_params(loss__quantile=0.9)`` and a grid over
            ``loss__quantile`` set single ones.
        scale_target: False gives the loss the target in its own unit.
        model: ``"mlp"``, a linear path and a hidden layer of ReLU; ``"linear"``; or a factory
            ``model(inputs, outputs)`` of modules that map ``(rows, inputs)`` to
            ``(rows, outputs)``.
        hidden: Units of the hidden layer of ``"mlp"``, ``>= 0``.
        epochs: Passes over the rows, ``>= 1``; None makes 1000 steps, and at least 20 epochs.
        batch_size: Most rows in a step, ``>= 1``.
        learning_rate: Step size of AdamW at the start, ``> 0``; it falls to 0 in a straight line.
        weight_decay: Decoupled weight decay, ``>= 0``.
        standardize: Whether features are standardised.
        early_stopping: Whether rows are held out to stop by the loss and keep its best epoch;
            ``"auto"`` does so from 100 rows on.
        validation_fraction: Their share, in (0, 1).
        patience: Epochs without improvement on them after which the training stops, ``>= 1``.
        random_state: Seed of weights, order and held-out rows, as for scikit-learn.
        device: Where the network is trained and predicts.

    Attributes:
        module_: The network.
        loss_: The loss as it was trained with.
        n_iter_: Epochs.
        best_epoch_: The epoch whose weights were kept, from 1.
        loss_curve_: Loss of the training rows in each epoch.
        validation_loss_curve_: Loss of the held-out rows after each epoch; empty without them.

    Raises:
        ValueError: In ``fit``, if the loss cannot serve: a classification, one without a link, or
            targets outside its domain.
        TypeError: In ``fit``, if an option of the loss is unknown.

    Example:
        >>> import numpy as np
        >>> from lossmith.train import LossRegressor
        >>> X = np.linspace(0, 1, 64)[:, None]
        >>> model = LossRegressor("pinball_loss", loss_params={"quantile": 0.9}, model="linear")
        >>> np.round(model.fit(X, 2 * X[:, 0]).predict([[0.5]]), 2)
        array([1.])
    """

    DEFAULT = "mse_loss"

    def __init__(
        self,
        loss: Any = None,
        *,
        loss_params: Any = None,
        scale_target: bool = True,
        model: Any = "mlp",
        hidden: int = 32,
        epochs: int | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        standardize: bool = True,
        early_stopping: Any = "auto",
        validation_fraction: float = 0.15,
        patience: int = 20,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        # repeated, because scikit-learn reads the parameters off this signature alone
        super().__init__(
            loss,
            loss_params=loss_params,
            model=model,
            hidden=hidden,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            standardize=standardize,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            patience=patience,
            random_state=random_state,
            device=device,
        )
        self.scale_target = scale_target

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on features ``(rows, columns)`` and targets ``(rows,)``; weight 0 means absent."""
        self._check()
        x, y, weight = self._rows(X, y, sample_weight, y_numeric=True)
        y = y.astype(x.dtype)
        assert_all_finite(y, input_name="y")  # None in an array of objects is NaN only now
        coding, link, spread = self._served(y)
        x = self._fit_scaler(x, weight)
        scale = residual_scale(x, y, weight) if self.scale_target else None
        self._units = units(coding, link, spread, y, weight, scale)
        target, given = self._tensor(self._units.target(y)), self._weights(weight)

        def cost_of(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            def cost(output: Tensor, rows: Tensor) -> Tensor:
                seen, *spread = self._units.seen(output)
                return loss(seen, target[rows], *spread, **given(rows))

            return cost

        self._train(x, weight, self._units.width, None, cost_of)
        return self

    def _served(self, y: Array) -> tuple[Coding, str, str | None]:
        names = " + ".join(part.card.name for part in self._parts)
        try:
            found = [_amounts(part, y) for part in self._parts]
            return common(found, "coding, link or spread")
        except Unfit as reason:
            fail("loss", "fit the targets of a regression", said(f"{names}: {reason}"))

    def predict(self, X: Any) -> Array:
        """What the loss elicits, ``(rows,)``."""
        output = self._output(X)
        return self._units.amount(output).cpu().numpy()

    @available_if(_predicts_spread)
    def predict_spread(self, X: Any) -> Array:
        """The spread that the loss takes beside its input, ``(rows,)``: a variance or a scale."""
        output = self._output(X)
        return self._units.amount_of_spread(output).cpu().numpy()


def _amounts(part: Part, y: Array) -> tuple[Coding, str, str | None]:
    card = part.card
    if not {"regression", "count", "binary"} & set(card.tasks):
        raise Unfit(f"it is for {' and '.join(card.tasks)}")
    spread = part.spread
    if part.way.out != ("*",):
        raise Unfit("it is one value of a whole batch, not one of each row")
    if card.link not in AMOUNTS_OF:
        raise Unfit("its card names no way from the output to a prediction")
    low, high = float(y.min()), float(y.max())
    return code_amounts(part.way, card.link, low, high), card.link, spread


def _gives_probabilities(estimator: "LossClassifier") -> bool:
    return all(
        part.card.link in ("softmax", "logit") and part.card.elicits is not None
        for part in estimator._parts
    )


class LossClassifier(ClassifierMixin, NetworkEstimator):
    """A classification with any loss: a linear model or a small network, as scikit-learn wants it.

    Losses of logit rows have one output per class; losses of one logit or margin have one for two
    classes, and one per class against the rest for more. ``predict_proba`` follows the link of
    the loss's card, softmax or logit, and is absent where there is none, as for margins. What it
    gives are the probabilities of the classes for losses that elicit the distribution, as
    cross-entropy does; losses of another kind, as the focal loss, distort them.

    Options that ask for the sizes of the classes, ``class_counts`` and ``prior``, are taken from
    the training rows where they are not given.

    Args:
        loss: A name, function, Module class or Module with reduction ``"mean"``, or a sum of them;
            None is ``"cross_entropy"``. Parameters of a Module are trained as well.
        loss_params: Options of the loss by name; ``set_params(loss__gamma=1.0)`` and a grid over
            ``loss__gamma`` set single ones.
        model: ``"mlp"``, a linear path and a hidden layer of ReLU; ``"linear"``; or a factory
            ``model(inputs, outputs)`` of modules that map ``(rows, inputs)`` to
            ``(rows, outputs)``.
        hidden: Units of the hidden layer of ``"mlp"``, ``>= 0``.
        epochs: Passes over the rows, ``>= 1``; None makes 1000 steps, and at least 20 epochs.
        batch_size: Most rows in a step, ``>= 1``.
        learning_rate: Step size of AdamW at the start, ``> 0``; it falls to 0 in a straight line.
        weight_decay: Decoupled weight decay, ``>= 0``.
        standardize: Whether features are standardised.
        early_stopping: Whether rows are held out to stop by the loss and keep its best epoch;
            ``"auto"`` does so from 100 rows on.
        validation_fraction: Their share, in (0, 1).
        patience: Epochs without improvement on them after which the training stops, ``>= 1``.
        random_state: Seed of weights, order and held-out rows, as for scikit-learn.
        device: Where the network is trained and predicts.

    Attributes:
        classes_: The classes, sorted.
        module_: The network.
        loss_: The loss as it was trained with.
        n_iter_: Epochs.
        best_epoch_: The epoch whose weights were kept, from 1.
        loss_curve_: Loss of the training rows in each epoch.
        validation_loss_curve_: Loss of the held-out rows after each epoch; empty without them.

    Raises:
        ValueError: In ``fit``, if the loss cannot serve, or there is one class only.
        TypeError: In ``fit``, if an option of the loss is unknown.

    Example:
        >>> import numpy as np
        >>> from lossmith.train import LossClassifier
        >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array(["no", "no", "yes", "yes"])
        >>> model = LossClassifier("focal_loss", loss_params={"gamma": 1.0}, random_state=0)
        >>> model.fit(X, y).predict([[0.2], [2.8]])
        array(['no', 'yes'], dtype='<U3')
        >>> hasattr(LossClassifier("hinge"), "predict_proba")
        False
    """

    DEFAULT = "cross_entropy"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on features ``(rows, columns)`` and classes ``(rows,)``; weight 0 means absent."""
        self._check()
        x, y, weight = self._rows(X, y, sample_weight)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least 2 classes, got one class: {self.classes_[0]!r}")
        coding, self._width = self._served(y)
        target = encode(self._tensor(index), coding, self._width)
        shares = np.bincount(index, weights=weight).astype(x.dtype)
        target = target if coding == "index" else target.to(self._tensor(shares).dtype)
        element = all(part.card.coupling == "element" for part in self._parts)
        given = self._weights(weight, self._width if element else 0)

        def cost_of(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            def cost(output: Tensor, rows: Tensor) -> Tensor:
                seen = output[:, 0] if self._width == 0 else output
                return loss(seen, target[rows], **given(rows))

            return cost

        fewest = np.bincount(index).min()
        strata = index if fewest > 1 and self.validation_fraction * len(y) >= len(shares) else None
        x = self._fit_scaler(x, weight)
        self._train(x, weight, self._width, self._tensor(shares), cost_of, strata)
        return self

    def _served(self, y: Array) -> tuple[Coding, int]:
        classes = len(np.unique(y))
        names = " + ".join(part.card.name for part in self._parts)
        try:
            found = [_classes(part, classes) for part in self._parts]
            coding, width, *_ = common(found, "coding, outputs, coupling, link or scale of logits")
        except Unfit as reason:
            fail("loss", "fit the targets of a classification", said(f"{names}: {reason}"))
        return coding, width

    def decision_function(self, X: Any) -> Array:
        """Logits or margins: of the second class ``(rows,)`` for two, else ``(rows, classes)``."""
        raw = self._output(X)
        trained = parts(self.loss_, None) if isinstance(self.loss_, Loss) else self._parts
        with torch.no_grad():
            raw = softcapped(raw, *trained[0].cap)
        if self._width == 0:
            raw = raw[:, 0]
        elif len(self.classes_) == 2:
            raw = raw[:, 1] - raw[:, 0]
        return raw.cpu().numpy()

    @available_if(_gives_probabilities)
    def predict_proba(self, X: Any) -> Array:
        """Probabilities of the classes, ``(rows, classes)``."""
        raw = torch.as_tensor(self.decision_function(X))
        if raw.ndim == 1:
            return torch.stack([-raw, raw], 1).sigmoid().numpy()
        if self._parts[0].card.link == "softmax":
            return torch.softmax(raw, 1).numpy()
        # each class against the rest: scaled to sum to 1, in the logarithm so that none is lost
        return torch.softmax(torch.nn.functional.logsigmoid(raw), 1).numpy()

    def predict(self, X: Any) -> Array:
        """The class with the largest logit or margin, ``(rows,)``."""
        raw = self.decision_function(X)
        return self.classes_[(raw > 0).astype(int) if raw.ndim == 1 else raw.argmax(1)]


def _classes(part: Part, classes: int) -> tuple[Any, ...]:
    card = part.card
    if not {"binary", "multiclass"} & set(card.tasks):
        raise Unfit(f"it is for {' and '.join(card.tasks)}")
    if card.coupling not in ("element", "row"):
        raise Unfit("it is one value of a whole batch, not one of each row")
    if part.spread is not None or not card.differentiable:
        raise Unfit("its gradient is 0 almost everywhere")
    return *code_classes(part.way, classes), card.coupling, card.link, part.cap
