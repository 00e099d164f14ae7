"""The skorch adapter against the real skorch."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

import lossmith
from lossmith.train.skorch import LossNeuralNetClassifier, probabilities


def _data(load) -> tuple[np.ndarray, np.ndarray]:
    X, y = load(return_X_y=True)
    return StandardScaler().fit_transform(X).astype("float32"), y.astype("int64")


def _fit(
    load, criterion, outputs: int, **options
) -> tuple[LossNeuralNetClassifier, np.ndarray, np.ndarray]:
    X, y = _data(load)
    torch.manual_seed(0)
    net = LossNeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=X.shape[1],
        module__out_features=outputs,
        criterion=criterion,
        lr=0.5,
        max_epochs=15,
        train_split=None,
        verbose=0,
        **options,
    )
    return net.fit(X, y), X, y


@pytest.mark.parametrize("criterion", [lossmith.CrossEntropyLoss, lossmith.FocalLoss])
def test_class_probabilities_are_the_softmax_of_the_output(criterion) -> None:
    net, X, y = _fit(load_wine, criterion, 3)
    found = net.predict_proba(X)
    raw = net.module_(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(found, torch.softmax(raw, 1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (net.predict(X) == y).mean() > 0.95


def test_binary_probabilities_are_the_sigmoid_of_the_output() -> None:
    net, X, y = _fit(load_breast_cancer, lossmith.BCEWithLogitsLoss, 1)
    found = net.predict_proba(X)
    raw = net.module_(torch.from_numpy(X)).detach().flatten()
    np.testing.assert_allclose(found[:, 1], torch.sigmoid(raw).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (net.predict(X) == y).mean() > 0.95


def test_options_of_the_loss_reach_it_and_can_be_searched() -> None:
    net, _, _ = _fit(load_wine, lossmith.CrossEntropyLoss, 3, criterion__label_smoothing=0.2)
    assert net.criterion_.label_smoothing == 0.2
    assert net.get_params()["criterion__label_smoothing"] == 0.2


def test_skorch_alone_returns_raw_logits() -> None:
    """The reason for the adapter: if skorch learns to do this, the adapter can go."""
    X, y = _data(load_wine)
    net = NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=X.shape[1],
        module__out_features=3,
        criterion=lossmith.CrossEntropyLoss,
        max_epochs=1,
        train_split=None,
        verbose=0,
    )
    assert not np.allclose(net.fit(X, y).predict_proba(X).sum(1), 1)


def test_a_loss_without_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match=r"criterion must be a loss with link softmax or logit"):
        probabilities(lossmith.MSELoss)
