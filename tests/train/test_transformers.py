"""The denominator under the real Trainer of Hugging Face."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # everything here is built from a configuration

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

import lossmith as lm
from lossmith.train.transformers import compute_loss_func

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*loss_type=None.*"),
]
ROWS, PLACES, TOKENS = 8, 12, 11


class Classifier(nn.Module):
    """A plain model: logits (rows, classes) or, with one output, (rows, 1)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, outputs)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.layer(x))


def _sentences() -> list[dict[str, Tensor]]:
    """Eight sentences, the last ones much shorter than the first."""
    torch.manual_seed(1)
    tokens = torch.randint(TOKENS, (ROWS, PLACES))
    labels = tokens.clone()
    for row in range(ROWS):
        labels[row, PLACES - row :] = -100
    return [{"input_ids": one, "labels": two} for one, two in zip(tokens, labels, strict=True)]


def _language_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": PLACES}
    drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    ends = {"bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=TOKENS, **sizes, **drop, **ends))


def _train(folder, model, rows, loss, batch: int, accumulate: int) -> tuple[dict, float]:
    """Weights after one step of plain gradient descent, and the loss that was logged."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulate,
        max_steps=1,
        learning_rate=0.5,
        lr_scheduler_type="constant",
        optim="sgd",
        weight_decay=0.0,
        max_grad_norm=0.0,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=True,
        seed=0,
    )
    trainer = Trainer(model, arguments, train_dataset=rows, compute_loss_func=loss)
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(rows)
    trainer.train()
    logged = next(one["loss"] for one in trainer.state.log_history if "loss" in one)
    return {name: one.detach().clone() for name, one in model.named_parameters()}, logged


def _gap(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return max((one[name] - other[name]).abs().max().item() for name in one)


@pytest.mark.parametrize(
    "loss",
    [
        compute_loss_func("cross_entropy"),
        compute_loss_func(lm.CrossEntropyLoss() + 0.5 * lm.FocalLoss(gamma=1.0)),
        compute_loss_func("multi_margin_loss"),  # without an ignore_index of its own
    ],
)
def test_accumulated_small_batches_are_one_large_batch_of_tokens(tmp_path, loss) -> None:
    rows = _sentences()
    whole, whole_loss = _train(tmp_path, _language_model(), rows, loss, batch=8, accumulate=1)
    parts, parts_loss = _train(tmp_path, _language_model(), rows, loss, batch=2, accumulate=4)
    assert _gap(parts, whole) < 1e-6
    assert parts_loss == pytest.approx(whole_loss, rel=1e-4)

    def mean_of_each_batch(outputs, labels, num_items_in_batch=None):
        return loss(outputs, labels) / 4

    naive, _ = _train(tmp_path, _language_model(), rows, mean_of_each_batch, 2, 4)
    assert _gap(naive, whole) > 1e-4


def test_cross_entropy_is_the_loss_that_the_model_would_compute_itself(tmp_path) -> None:
    rows = _sentences()
    mine, mine_loss = _train(
        tmp_path, _language_model(), rows, compute_loss_func("cross_entropy"), 2, 4
    )
    theirs, their_loss = _train(tmp_path, _language_model(), rows, None, 2, 4)
    assert _gap(mine, theirs) < 1e-6
    assert mine_loss == pytest.approx(their_loss, rel=1e-4)


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [
        (3, compute_loss_func("focal_loss", gamma=1.0)),
        (3, compute_loss_func(lm.CrossEntropyLoss(label_smoothing=0.1))),
        (1, compute_loss_func("huber_loss")),
        (2, compute_loss_func(lm.BCEWithLogitsLoss())),
    ],
)
def test_classes_amounts_and_flags_accumulate_as_well(tmp_path, outputs, loss) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4)
    labels = {1: torch.randn(8), 2: torch.randint(2, (8, 2)).float(), 3: torch.randint(3, (8,))}
    labels = labels[outputs]
    labels[[4, 5, 7]] = -100  # rows without a label
    rows = [{"x": one, "labels": two} for one, two in zip(x, labels, strict=True)]
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(Classifier(outputs))
    whole, whole_loss = _train(tmp_path, models[0], rows, loss, batch=8, accumulate=1)
    parts, parts_loss = _train(tmp_path, models[1], rows, loss, batch=2, accumulate=4)
    assert _gap(parts, whole) < 1e-6
    assert parts_loss == pytest.approx(whole_loss, rel=1e-4)


def test_evaluation_divides_by_the_labels_of_the_batch_and_none_is_no_error() -> None:
    loss = compute_loss_func("cross_entropy", shift=False)
    logits, labels = torch.randn(3, 4), torch.tensor([0, -100, 3])
    expected = lm.cross_entropy(logits, labels)
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    torch.testing.assert_close(loss((logits,), labels), expected)
    for count in (None, 0, torch.tensor(0)):  # of a step all of whose labels are masked
        leaf = logits.clone().requires_grad_()
        value = loss((leaf,), torch.full((3,), -100), num_items_in_batch=count)
        value.backward()
        assert value.item() == 0.0
        assert not leaf.grad.any()


def test_terms_are_summed_over_the_items_of_the_step() -> None:
    loss = compute_loss_func(lm.MSELoss() + 2.0 * lm.L1Loss())
    value = loss((torch.tensor([[1.0], [3.0]]),), torch.zeros(2), num_items_in_batch=4)
    assert value.item() == pytest.approx((1 + 9) / 4 + 2 * (1 + 3) / 4)


def test_what_a_module_learns_gets_its_gradient_and_its_reduction_stays() -> None:
    given = lm.AdaptiveBarronLoss()
    output, target = torch.tensor([1.0, 3.0]), torch.zeros(2)
    compute_loss_func(given)((output,), target, num_items_in_batch=4).backward()
    found = given.alpha_logit.grad.clone()
    given.zero_grad()
    given(output, target).backward()
    torch.testing.assert_close(found, given.alpha_logit.grad / 2)
    assert given.reduction == "mean"


@pytest.mark.parametrize(
    ("loss", "options", "found"),
    [
        ("dice_loss", {}, r"loss must be an element or row loss of two tensors, got dice_loss"),
        (lm.RMSELoss(), {}, r"loss must be an element or row loss of two tensors, got rmse_loss"),
        ("gaussian_nll_loss", {}, r"loss must be an element or row loss of two tensors"),
        ("cross_entropy", {"ignore_index": 0}, r"ignore_index must be -100, by which the Trainer"),
        (lm.CrossEntropyLoss(ignore_index=1), {}, r"ignore_index must be -100"),
        (lm.FocalLoss(), {"gamma": 1.0}, r"options must be those of the Module"),
        ("no loss", {}, r"loss must be a name in the catalogue"),
        (nn.MSELoss(), {}, r"loss must be a loss registered"),
    ],
)
def test_what_cannot_be_accumulated_is_refused(loss, options, found) -> None:
    with pytest.raises(ValueError, match=found):
        compute_loss_func(loss, **options)


def test_types_are_refused() -> None:
    with pytest.raises(TypeError, match=r"huber_loss takes delta, got gamma"):
        compute_loss_func("huber_loss", gamma=1.0)
    with pytest.raises(TypeError, match=r"labels must be class indices, got torch.float32"):
        compute_loss_func("cross_entropy")((torch.zeros(2, 3),), torch.zeros(2))
    with pytest.raises(ValueError, match=r"labels must be in each batch, got None"):
        compute_loss_func("cross_entropy")((torch.zeros(2, 3),), None)
