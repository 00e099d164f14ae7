"""What the scikit-learn estimators share: parameters, the training, the raw output."""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from lossmith.tabular.networks import MODELS, Model, check_module
from lossmith.train.loop import Course, Recipe, train
from lossmith.train.serving import Part, parts, ready

Array = NDArray[Any]
# Steps of a training whose number of epochs is left open, and the fewest such epochs
STEPS, FEWEST = 1000, 20
# Rows from which some can be spared to stop early
ENOUGH = 100
FLOATS = [np.float64, np.float32]


class NetworkEstimator(BaseEstimator):
    """A small network and its training; the estimators say how targets meet the loss."""

    DEFAULT: str  # the loss that None stands for

    def __init__(
        self,
        loss: Any = None,
        *,
        loss_params: Mapping[str, Any] | None = None,
        model: str | Model = "mlp",
        hidden: int = 32,
        epochs: int | None = None,
        batch_size: int = 256,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        standardize: bool = True,
        early_stopping: bool | Literal["auto"] = "auto",
        validation_fraction: float = 0.15,
        patience: int = 20,
        random_state: Any = None,
        device: str = "cpu",
    ) -> None:
        self.loss = loss
        self.loss_params = loss_params
        self.model = model
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.device = device

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name; with ``deep`` each option of the loss as ``loss__NAME`` as well."""
        found = dict(super().get_params(deep=deep))
        options = self.loss_params if deep and isinstance(self.loss_params, Mapping) else {}
        return found | {f"loss__{name}": value for name, value in options.items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters; ``loss__NAME`` sets one option of the loss and leaves the others."""
        own = {name: value for name, value in params.items() if not name.startswith("loss__")}
        super().set_params(**own)
        options = {name[6:]: params[name] for name in params if name not in own}
        if options:
            self.loss_params = {**(self.loss_params or {}), **options}
        return self

    @property
    def _asked(self) -> Any:
        return self.DEFAULT if self.loss is None else self.loss

    @property
    def _parts(self) -> list[Part]:
        return parts(self._asked, self.loss_params)

    def _served(self, y: Array) -> tuple[Any, ...]:
        """How the loss sees these targets; ValueError if it does not."""
        raise NotImplementedError

    def serves(self, y: Any) -> bool:
        """Whether the loss fits targets such as these, ``(rows,)``."""
        try:
            return bool(self._served(np.asarray(y)))
        except ValueError:
            return False

    def _check(self) -> None:
        for name, low in (("hidden", 0), ("epochs", 1), ("batch_size", 1), ("patience", 1)):
            if getattr(self, name) is not None or name != "epochs":
                check_scalar(getattr(self, name), name, Integral, min_val=low)
        ends: dict[str, Any] = {"min_val": 0, "include_boundaries": "neither"}
        check_scalar(self.learning_rate, "learning_rate", Real, **ends)
        check_scalar(self.validation_fraction, "validation_fraction", Real, **ends, max_val=1)
        check_scalar(self.weight_decay, "weight_decay", Real, min_val=0)
        for name, more in (("standardize", ()), ("early_stopping", ("auto",))):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_) and value not in more:
                words = ", ".join(("True or False", *map(repr, more)))
                raise ValueError(f"{name} must be {words}, got {value!r}")
        if not isinstance(self.loss_params, Mapping | None):
            raise TypeError(f"loss_params must be a mapping or None, got {self.loss_params!r}")
        try:
            torch.zeros(1, device=self.device).item()  # of "meta" nothing comes back
        except (RuntimeError, TypeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            rule = "device must name a device of torch that is there"
            raise ValueError(f"{rule}, got {self.device!r}: {reason}") from None
        try:
            check_random_state(self.random_state)
        except ValueError as error:
            raise ValueError(f"random_state must seed a generator: {error}") from None
        if isinstance(self.model, str) and self.model not in MODELS:
            raise ValueError(f"model must be mlp, linear or a factory, got {self.model!r}")
        if not isinstance(self.model, str) and not callable(self.model):
            raise TypeError(f"model must be mlp, linear or a factory, got {self.model!r}")

    def _rows(self, X: Any, y: Any, sample_weight: Any, **checks: Any) -> tuple[Array, ...]:
        """Features, targets and weights of the rows that are there: weight 0 means absent."""
        both: Any = validate_data(self, X, y, dtype=FLOATS, **checks)
        x, y = both
        weight = _check_sample_weight(sample_weight, x, dtype=x.dtype, ensure_non_negative=True)
        there = weight > 0
        return x[there], y[there], weight[there]

    def _fit_scaler(self, x: Array, weight: Array) -> Array:
        self._scaler = StandardScaler().fit(x, sample_weight=weight) if self.standardize else None
        return self._scaled(x)

    def _scaled(self, x: Array) -> Array:
        return x if self._scaler is None else np.asarray(self._scaler.transform(x))

    def _train(
        self,
        scaled: Array,
        weight: Array,
        width: int,
        counts: Tensor | None,
        cost_of: Callable[[Callable[..., Tensor]], Callable[[Tensor, Tensor], Tensor]],
        strata: Array | None = None,
    ) -> None:
        """Build and train ``module_`` and ``loss_`` on features that are scaled already."""
        x, w = self._tensor(scaled), self._tensor(weight)
        self.loss_ = ready(self._asked, self.loss_params, x, counts)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        rows = np.arange(len(x)), np.arange(0)
        if len(x) >= ENOUGH if self.early_stopping == "auto" else self.early_stopping:
            cut: dict[str, Any] = {"test_size": self.validation_fraction, "random_state": seed}
            rows = train_test_split(rows[0], stratify=strata, **cut)
        fit, hold = (torch.as_tensor(np.asarray(one)) for one in rows)
        batch = min(int(self.batch_size), len(fit))  # torch takes no integer of NumPy there
        epochs = self.epochs or max(FEWEST, STEPS // -(-len(fit) // batch))
        recipe = Recipe(epochs, batch, self.learning_rate, self.weight_decay, self.patience)
        learnt = list(self.loss_.parameters()) if isinstance(self.loss_, nn.Module) else []
        place = torch.device(self.device)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(seed)
            self.module_ = self._network(x.shape[1], max(1, width)).to(x)
            order = torch.Generator().manual_seed(seed)
            cost = cost_of(self.loss_)
            course: Course = train(self.module_, learnt, x, w, cost, fit, hold, recipe, order)
        self.n_iter_ = len(course.trained)
        self.best_epoch_ = course.best
        self.loss_curve_, self.validation_loss_curve_ = course.trained, course.held

    def _weights(self, weight: Array, columns: int = 0) -> Callable[[Tensor], dict[str, Tensor]]:
        """What a loss is told about the weights of some rows: nothing if all are alike."""
        if (weight == weight[0]).all():
            return lambda rows: {}
        whole = self._tensor(weight)
        whole = whole[:, None].expand(-1, columns) if columns else whole
        return lambda rows: {"sample_weight": whole[rows]}

    def _network(self, inputs: int, outputs: int) -> nn.Module:
        if isinstance(self.model, str):
            hidden = {"hidden": self.hidden} if self.model == "mlp" else {}
            return MODELS[self.model](inputs, outputs, **hidden)
        made = self.model(inputs, outputs)
        check_module(made, inputs, outputs)
        return made

    def _tensor(self, values: Array) -> Tensor:
        return torch.tensor(values, device=self.device)

    @torch.no_grad()
    def _output(self, X: Any) -> Tensor:
        """The raw output of the network, ``(rows, outputs)``."""
        check_is_fitted(self)
        x: Any = validate_data(self, X, dtype=FLOATS, reset=False)
        return self.module_(self._tensor(self._scaled(x)).to(next(self.module_.parameters())))
