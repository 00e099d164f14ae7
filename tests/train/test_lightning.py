"""The Lightning module under the real Trainer."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lossmith as lm
from lossmith.train.lightning import LossModule

# Lightning's own: advice about workers, torch's pytree under its old name, and a mean over
# batches whose size it was told
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


def _trainer(folder: Path, epochs: int = 1, **more) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({"enable_checkpointing": False} | more),
    )


def _loader(*tensors: Tensor, batch: int = 5) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), batch_size=batch)


def _tokens() -> tuple[Tensor, Tensor]:
    """Twelve rows of four labels, many of them ignored, as at the ends of sentences."""
    torch.manual_seed(0)
    x, target = torch.randn(12, 4, 3), torch.randint(3, (12, 4))
    target[2:5, 1:] = -100
    target[5:10, :2] = -100
    return x, target


class PerToken(nn.Module):
    """Logits (rows, classes, places) as cross-entropy wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).mT


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["mse_loss", "rows", "class weights", "sum"])
def test_the_value_of_an_epoch_is_the_mean_over_its_samples(tmp_path, name, weighted) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(12, 3), torch.randn(12, 2)
    model: nn.Module = nn.Linear(3, 2)
    loss = "mse_loss" if name == "mse_loss" else lm.MSELoss() + 0.5 * lm.L1Loss()
    if name in ("rows", "class weights"):
        x, target = _tokens()
        model = PerToken()
        loss = lm.CrossEntropyLoss()
        if name == "class weights":
            loss = lm.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2]))
    weight = torch.rand(target.shape) * torch.arange(12).view(-1, *[1] * (target.ndim - 1))
    more = (weight,) if weighted else ()
    module = LossModule(model, loss)
    trainer = _trainer(tmp_path)
    trainer.validate(module, _loader(x, target, *more), verbose=False)
    named = {"sample_weight": weight} if weighted else {}
    function = lm.mse_loss if name == "mse_loss" else loss
    expected = function(model(x), target, **named).item()
    assert trainer.callback_metrics["val_loss"].item() == pytest.approx(expected, rel=1e-5)
    # the usual error is another number on these data
    parts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    naive = [
        function(model(x[at]), target[at], **{k: w[at] for k, w in named.items()}).item()
        for at in parts
    ]
    assert abs(np.mean(naive) - expected) > 1e-3


def test_each_term_of_a_sum_is_logged(tmp_path) -> None:
    torch.manual_seed(0)
    x, target = torch.randn(12, 3), torch.randn(12, 2)
    module = LossModule(nn.Linear(3, 2), lm.MSELoss() + 0.5 * lm.L1Loss())
    trainer = _trainer(tmp_path)
    trainer.validate(module, _loader(x, target), verbose=False)
    found = {name: one.item() for name, one in trainer.callback_metrics.items()}
    output = module(x)
    assert found == pytest.approx(
        {
            "val_loss": found["val_mse_loss"] + found["val_l1_loss"],
            "val_mse_loss": lm.mse_loss(output, target).item(),
            "val_l1_loss": 0.5 * lm.l1_loss(output, target).item(),
        },
        rel=1e-5,
    )
    trainer = _trainer(tmp_path / "fit")
    trainer.fit(module, _loader(x, target), _loader(x, target))
    logged = (Path(trainer.logger.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert {"train_loss_step", "train_loss_epoch", "train_l1_loss_epoch"} <= set(logged.split(","))


def test_what_a_loss_learns_is_trained_without_decay_and_kept_in_the_checkpoint(tmp_path) -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 1)
    target = x + torch.distributions.StudentT(1.0).sample((60, 1))
    module = LossModule(nn.Linear(1, 1), lm.AdaptiveBarronLoss(), learning_rate=0.05)
    keep = ModelCheckpoint(tmp_path / "best", filename="kept")
    _trainer(tmp_path, 20, enable_checkpointing=True, callbacks=[keep]).fit(
        module, _loader(x, target, batch=60), _loader(x, target, batch=60)
    )
    learnt = module.loss.alpha.item()
    assert learnt < 0.9
    groups = module.configure_optimizers().param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
    assert [len(group["params"]) for group in groups] == [2, 2]
    fresh = LossModule.load_from_checkpoint(
        tmp_path / "best" / "kept.ckpt", model=nn.Linear(1, 1), loss=lm.AdaptiveBarronLoss()
    )
    assert fresh.loss.alpha.item() == pytest.approx(learnt)


def test_a_module_of_the_user_shares_its_own_tensors(tmp_path) -> None:
    class Contrast(LossModule):
        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            (x,) = batch
            return self.share("train", self(x), self(x + 0.1))

        validation_step = None

    torch.manual_seed(0)
    module = Contrast(nn.Linear(3, 4), lm.InfoNCELoss())
    before = module.model.weight.detach().clone()
    trainer = _trainer(tmp_path)
    trainer.fit(module, _loader(torch.randn(8, 3), batch=4))
    assert not torch.equal(module.model.weight, before)
    assert trainer.callback_metrics["train_loss_epoch"].isfinite()


def test_what_is_no_loss_is_refused() -> None:
    with pytest.raises(TypeError, match=r"loss must be a Module, a function or a name, got int"):
        LossModule(nn.Linear(1, 1), 3)
    with pytest.raises(ValueError, match=r"loss must be a name in the catalogue"):
        LossModule(nn.Linear(1, 1), "no such loss")
    with pytest.raises(TypeError, match=r"model must be a Module or a function, got int 3"):
        LossModule(3, nn.MSELoss())
