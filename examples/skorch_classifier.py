"""A scikit-learn pipeline whose network is trained with a lossmith loss and gives probabilities."""

import torch
from sklearn.datasets import load_wine
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import lossmith as lm
from lossmith.train.skorch import LossNeuralNetClassifier


def main() -> dict[str, float]:
    """Search the focusing parameter of the focal loss by the log loss of its probabilities."""
    torch.manual_seed(0)
    X, y = load_wine(return_X_y=True)
    network = LossNeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=13,
        module__out_features=3,
        criterion=lm.FocalLoss,
        lr=0.5,
        max_epochs=20,
        train_split=None,
        verbose=0,
    )
    pipeline = make_pipeline(
        StandardScaler(), FunctionTransformer(lambda Z: Z.astype("float32")), network
    )
    grid = {"lossneuralnetclassifier__criterion__gamma": [0.0, 1.0, 2.0]}
    search = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=3).fit(X, y)
    probabilities = search.predict_proba(X)
    found = {
        "gamma": search.best_params_["lossneuralnetclassifier__criterion__gamma"],
        "log_loss": log_loss(y, probabilities),
        "row_sum": float(probabilities.sum(1).mean()),
    }
    print("  ".join(f"{name} {value:.3f}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main()
