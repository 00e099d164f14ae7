"""Linear regression on the diabetes data: SGD, mean squared error, 100 epochs."""

import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

import lossmith as lm


def main() -> dict[str, float]:
    """Train, and compare with the closed-form solution."""
    torch.manual_seed(0)
    features, outcome = load_diabetes(return_X_y=True)
    X = torch.tensor(StandardScaler().fit_transform(features), dtype=torch.float32)
    y = torch.tensor(outcome, dtype=torch.float32)
    y = (y - y.mean()) / y.std()

    model = torch.nn.Linear(X.shape[1], 1)
    loss = lm.MSELoss()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    first = last = float("nan")
    for epoch in range(100):
        for rows in torch.randperm(len(X)).split(32):
            optimiser.zero_grad()
            # (32, 1) against (32,) would raise: the extra dimension has to be dropped by name
            value = loss(model(X[rows]).squeeze(1), y[rows])
            value.backward()
            optimiser.step()
        with torch.no_grad():
            last = loss(model(X).squeeze(1), y).item()
        first = last if epoch == 0 else first
        if epoch % 20 == 19:
            print(f"epoch {epoch + 1:3d}  mean squared error {last:.4f}")

    exact = LinearRegression().fit(X, y).predict(X)
    best = lm.mse_loss(torch.tensor(exact, dtype=torch.float32), y).item()
    print(f"closed form  mean squared error {best:.4f}")
    return {"first": first, "last": last, "best": best}


if __name__ == "__main__":
    main()
