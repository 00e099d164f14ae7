"""A LightningModule that trains with any lossmith loss and logs what the loss really is.

Needs the extra ``lightning``: ``pip install "lossmith[lightning]"``.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lossmith.core.catalogue import card as find_card
from lossmith.core.checks import fail_type
from lossmith.core.module import Loss, Sum
from lossmith.train.counting import divisor

try:
    from lightning.pytorch import LightningModule
except ImportError as _error:
    raise ImportError(
        f"lossmith.train.lightning needs pip install 'lossmith[lightning]': {_error}"
    ) from None


class LossModule(LightningModule):
    """A model, a loss and AdamW; or a base class whose :meth:`share` your own steps call.

    Logs ``train_loss``, ``val_loss`` and ``test_loss``, and each term of a sum of losses under its
    name, as ``val_dice_loss``. The value of an epoch is the mean over its samples, by their weights
    and without those that are ignored, however the batches are cut: a mean of batch means counts
    the samples of a short last batch too much.

    Args:
        model: Maps the first item of a batch to the input of the loss.
        loss: A Module, function or name. What a Module learns is trained without weight decay,
            and kept in checkpoints.
        learning_rate: Step size of AdamW.
        weight_decay: Of the model.

    Raises:
        TypeError: If ``model`` or ``loss`` cannot be called.
        ValueError: If a name is not in the catalogue.

    Example:
        >>> import torch, lossmith as lm
        >>> from lossmith.train.lightning import LossModule
        >>> loss = lm.CrossEntropyLoss() + 0.5 * lm.FocalLoss()
        >>> module = LossModule(torch.nn.Linear(2, 3), loss)
        >>> module.share("train", torch.zeros(1, 3), torch.tensor([1]))  # outside of a Trainer
        tensor(1.3427)
    """

    def __init__(
        self,
        model: nn.Module,
        loss: str | Callable[..., Tensor],
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        if not isinstance(loss, str) and not callable(loss):
            fail_type("loss", "be a Module, a function or a name", loss)
        if not callable(model):
            fail_type("model", "be a Module or a function", model)
        self.model = model
        self.loss: Any = find_card(loss).function if isinstance(loss, str) else loss
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """What the model gives."""
        return self.model(*inputs, **named)

    def unpack(self, batch: Any) -> tuple[Any, tuple[Tensor, ...], Tensor | None]:
        """Input of the model, tensors of the loss, sample weights; override for other batches.

        A batch is ``(x, target)`` or ``(x, target, sample_weight)``.
        """
        x, target, *weight = batch
        return x, (target,), weight[0] if weight else None

    def share(self, stage: str, *tensors: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The loss of a batch, logged under ``stage``.

        Args:
            stage: ``"train"``, ``"val"`` or ``"test"``: what names in the log begin with.
            *tensors: As the loss wants them, the model's output first.
            sample_weight: Weights of the samples, 0 for absent ones.
        """
        named = {} if sample_weight is None else {"sample_weight": sample_weight}
        value = self.loss(*tensors, **named)
        found = {"loss": value.detach(), **(self.loss.terms if isinstance(self.loss, Sum) else {})}
        if self._trainer is not None:
            self.log_dict(
                {f"{stage}_{name}": one for name, one in found.items()},
                on_step=stage == "train",
                on_epoch=True,
                prog_bar=True,
                sync_dist=stage != "train",
                # a tensor: reading it would make a GPU wait
                batch_size=divisor(self.loss, tensors, sample_weight),  # type: ignore[arg-type]
            )
        return value

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The loss of a batch."""
        return self._step("train", batch)

    def validation_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Tensor:
        """The loss of a batch."""
        return self._step("val", batch)

    def test_step(self, batch: Any, index: int, dataloader_idx: int = 0) -> Tensor:
        """The loss of a batch."""
        return self._step("test", batch)

    def _step(self, stage: str, batch: Any) -> Tensor:
        x, tensors, weight = self.unpack(batch)
        return self.share(stage, self(x), *tensors, sample_weight=weight)

    def configure_optimizers(self) -> Any:
        """AdamW over the model and what the loss learns."""
        learnt = list(self.loss.parameters()) if isinstance(self.loss, Loss) else []
        own = {id(one) for one in learnt}
        rest = [one for one in self.parameters() if id(one) not in own]
        groups = [{"params": rest}, {"params": learnt, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=self.learning_rate, weight_decay=self.weight_decay)
