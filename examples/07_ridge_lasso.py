"""Ridge and lasso: a growing penalty makes ridge weights small, and lasso weights exactly 0.

Linear regression of the progress of diabetes on ten measurements of 442 patients
(scikit-learn's data set, standardised), by full gradient descent with an L2 and
an L1 penalty. The L1 step ends in a soft threshold, which is where the zeros come from.

Hoerl and Kennard, "Ridge regression", 1970; Tibshirani, "Regression shrinkage and
selection via the lasso", 1996.
"""

from __future__ import annotations

from collections.abc import Sequence

import common
import numpy as np
from sklearn.datasets import load_diabetes

from fastdl import nn, optim


def regression(
    x: np.ndarray, y: np.ndarray, lr: float, regularizer: optim.Regularizer, steps: int
) -> np.ndarray:
    """The weights that minimise ``mean((x @ w - y)**2) + penalty(w)``."""
    linear = nn.Linear(x.shape[1], 1, bias=False, rng=0, dtype=np.float64)
    loss, optimizer = nn.MSELoss(), optim.SGD(lr, regularizer=regularizer)
    for _ in range(steps):
        loss.forward(linear(x), y)
        linear.backward(loss.backward())
        optimizer.update(linear.parameters(), linear.gradients())
    return linear.weight[0].copy()


def main(argv: Sequence[str] | None = None) -> common.Figures:
    args = common.arguments(argv, __doc__)
    count, steps = (5, 400) if args.quick else (25, 2000)
    patients = load_diabetes()
    x, y = patients.data, patients.target[:, np.newaxis]
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    picture = common.figure("Ridge and lasso: ten weights under a growing penalty", 10, 4.6)
    panels = picture.subplots(1, 2, sharey=True)
    cases = {
        "ridge": (optim.L2, np.geomspace(0.01, 1000, count), "λ/2 · Σ w²"),
        "lasso": (
            lambda strength: optim.L1(strength, proximal=True),
            np.geomspace(0.005, 1, count),
            "λ · Σ |w|",
        ),
    }
    palette = (
        common.BLUE,
        common.ORANGE,
        common.GREEN,
        common.PINK,
        common.SKY,
        common.RED,
        common.GREY,
    )
    figures = {}
    for axes, (label, (make, strengths, penalty)) in zip(panels, cases.items(), strict=True):
        weights = np.array(
            [
                # The steps must be shorter than the loss and the penalty are curved.
                regression(x, y, 1 / (10 + strength), make(strength), steps)
                for strength in strengths
            ]
        )
        for number, name in enumerate(patients.feature_names):
            axes.semilogx(
                strengths,
                weights[:, number],
                color=palette[number % len(palette)],
                linestyle="-" if number < len(palette) else "--",
                label=name,
            )
        common.tidy(
            axes, "λ", "weight" if label == "ridge" else "", f"{label}: mean error² + {penalty}"
        )
        zeros, size = int((weights[-1] == 0).sum()), float(np.abs(weights[-1]).sum())
        halfway = int((weights[count // 2] == 0).sum())
        figures |= {
            f"{label}, zeros": zeros,
            f"{label}, zeros halfway": halfway,
            f"{label}, size": size,
            f"{label}, size at the start": float(np.abs(weights[0]).sum()),
        }
        print(
            f"{label}: {halfway} of {len(weights[0])} weights are exactly 0 at λ = "
            f"{strengths[count // 2]:.3g}, {zeros} at λ = {strengths[-1]:.3g} "
            f"(where their absolute sum is {size:.3g})"
        )
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    common.save(picture, args, __file__)
    return figures


if __name__ == "__main__":
    common.run(main)
