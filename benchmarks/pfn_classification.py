"""Classification from 30 rows, as Table 1 of Mueller et al. (2022), on tables that scikit-learn bundles.

    python benchmarks/pfn_classification.py [--draws 20] [--weights classifier]
    python benchmarks/pfn_classification.py --prior [--number 24]
    python benchmarks/pfn_classification.py --temperature [--number 24]
    python benchmarks/pfn_classification.py --terciles

Every draw takes 30 rows, stratified, and scores the rest: area under the ROC curve (one against one,
averaged), expected calibration error of the most probable class, log loss. Methods beside it are
scikit-learn's, on standardised columns; "tuned" ones choose their knob by 3-fold cross-validation. `--prior`: on tables of the training prior instead, the
mean KL divergence in nats from the class probabilities that the prior gives knowing the function.
`--temperature`: what a temperature from rows held out costs there, where 1 is right. `--terciles`: real tables that were not
looked at for it, the open UCI sets of the shared data, their targets cut at the terciles.
"""

from __future__ import annotations

import argparse
import time
import warnings

import jax
import numpy as np
from _common import write
from pfn_tables import UCI
from pfn_tables import tables as uci_tables
from scipy.stats import rankdata
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import bayesnet as bn
from bayesnet.pfn.class_certificate import calibration_error
from bayesnet.pfn.configurations import read_configuration

ROWS = 30
PFNS = {
    "PFN": {},
    "PFN, temperature 1": {"temperature": 1.0},
    "PFN, one view": {"temperature": 1.0, "ensemble": 1},
}


def tables() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    x, y = load_digits(return_X_y=True)
    age = load_diabetes()
    return {
        "iris (4 columns, 3 classes)": load_iris(return_X_y=True),
        "diabetes above its median (10, 2)": (age.data, age.target > np.median(age.target)),
        "wine (13, 3)": load_wine(return_X_y=True),
        "breast cancer (30, 2)": load_breast_cancer(return_X_y=True),
        "digits 0 to 4 (64, 5)": (x[y < 5], y[y < 5]),
    }


def terciles() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found = uci_tables(list(UCI))
    return {
        k: (x, np.searchsorted(np.quantile(y, [1 / 3, 2 / 3]), y)) for k, (x, y) in found.items()
    }


def methods(seed: int, weights: bn.pfn.ClassPFN) -> dict[str, object]:
    folds = StratifiedKFold(3, shuffle=True, random_state=seed)

    def tuned(model, **grid):
        name = type(model).__name__.lower()
        return GridSearchCV(
            make_pipeline(StandardScaler(), model),
            {f"{name}__{k}": v for k, v in grid.items()},
            cv=folds,
            scoring="neg_log_loss",
        )

    return {
        **{
            name: bn.PFNClassifier(weights, random_state=seed, **knobs)
            for name, knobs in PFNS.items()
        },
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "logistic regression, tuned": tuned(
            LogisticRegression(max_iter=1000), C=[0.01, 0.1, 1.0, 10.0, 100.0]
        ),
        "k nearest neighbours, tuned": tuned(KNeighborsClassifier(), n_neighbors=[1, 3, 5, 8, 12]),
        "Gaussian process": make_pipeline(
            StandardScaler(), GaussianProcessClassifier(ConstantKernel() * RBF(), random_state=seed)
        ),
        "gradient boosting": GradientBoostingClassifier(random_state=seed),
    }


def score(p: np.ndarray, y: np.ndarray) -> dict[str, float]:
    auc = (
        roc_auc_score(y, p[:, 1])
        if p.shape[1] == 2
        else roc_auc_score(y, p, multi_class="ovo", labels=np.arange(p.shape[1]))
    )
    p = np.clip(p, 1e-6, None)
    p = p / p.sum(axis=1, keepdims=True)
    chosen = p.argmax(axis=1)
    return {
        "auc": float(auc),
        "ece": calibration_error(p.max(axis=1), (chosen == y).astype(float), 15),
        "log_loss": float(log_loss(y, p, labels=np.arange(p.shape[1]))),
        "accuracy": float((chosen == y).mean()),
    }


def prior_tables(
    weights: bn.pfn.ClassPFN, number: int, counts: tuple[int, ...] = (30, 100), pfns: bool = False
) -> dict[str, dict[str, float]]:
    """KL divergence from the truth on tables of the prior, means and paired differences to the PFN.

    Tables with fewer than 3 rows of some class are left out: cross-validation needs them (not where
    `pfns` alone are asked for).
    """
    tasks = read_configuration("classifier").tasks
    found = {}
    every: list[float] = []
    for d in (2, 5, 10, 40):
        for n in counts:
            rows: dict[str, list[float]] = {}
            for part in range(len(tasks.weights)):
                size = max(1, round(number * tasks.weights[part]))
                key = jax.random.fold_in(jax.random.key(99), 100 * d + n + part)
                batch = jax.tree.map(np.asarray, tasks.draw(key, size, np.full(size, n), d, part))
                for i in range(size):
                    x, y = batch.x[i, :n], batch.codes[i, :n]
                    seen, shown = np.unique(y, return_counts=True)
                    if len(seen) < max(2, batch.classes[i].sum()) or not (pfns or shown.min() > 2):
                        continue
                    target = batch.target[i][:, seen].astype(np.float64)
                    for name, model in methods(0, weights).items():
                        if pfns and name not in PFNS:
                            continue
                        p = np.clip(model.fit(x, y).predict_proba(batch.queries[i]), 1e-6, None)
                        p = p / p.sum(axis=1, keepdims=True)
                        safe = np.where(target > 0, target, 1.0)
                        kl = (target * (np.log(safe) - np.log(p))).sum(axis=1).mean()
                        rows.setdefault(name, []).append(float(kl))
            count = len(rows["PFN"])
            cell: dict[str, float] = {"tables": count}
            for name, values in rows.items():
                gap = np.array(values) - np.array(rows["PFN"])
                cell[name] = round(float(np.mean(values)), 4)
                cell[f"{name} minus PFN"] = round(float(gap.mean()), 4)
                cell[f"{name} minus PFN, 95 %"] = round(1.96 * float(gap.std() / count**0.5), 4)
            found[f"{d} columns, {n} rows"] = cell
            every.extend(np.array(rows["PFN"]) - np.array(rows["PFN, temperature 1"]))
            print(d, n, cell, flush=True)
    found["PFN minus temperature 1, all tables"] = {
        "tables": len(every),
        "mean": round(float(np.mean(every)), 4),
        "95 %": round(1.96 * float(np.std(every) / len(every) ** 0.5), 4),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--weights", default="classifier")
    parser.add_argument("--prior", action="store_true")
    parser.add_argument("--temperature", action="store_true")
    parser.add_argument("--terciles", action="store_true")
    parser.add_argument("--number", type=int, default=24, help="tables a cell of the prior")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    # Loaded once: a method that is made anew for every table would read the file every time.
    is_file = options.weights.endswith(".safetensors")
    load = bn.pfn.ClassPFN.load if is_file else bn.pfn.ClassPFN.from_pretrained
    weights = load(options.weights)
    if options.prior:
        write("pfn_classification_prior", prior_tables(weights, options.number))
        return
    if options.temperature:
        cost = prior_tables(weights, options.number, (10, 30, 100), pfns=True)
        write("pfn_classification_temperature", cost)
        return
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name, (x, y) in (terciles() if options.terciles else tables()).items():
        codes = np.unique(y, return_inverse=True)[1]
        found[name] = {}
        for draw in range(options.draws):
            x_in, x_out, y_in, y_out = train_test_split(
                x, codes, train_size=ROWS, stratify=codes, random_state=draw
            )
            x_out, y_out = x_out[:1000], y_out[:1000]
            for method, model in methods(draw, weights).items():
                start = time.perf_counter()
                p = model.fit(x_in, y_in).predict_proba(x_out)
                seconds = time.perf_counter() - start
                found[name].setdefault(method, []).append(score(p, y_out) | {"seconds": seconds})
        print(name)
        for method, rows in found[name].items():
            parts = {k: np.mean([r[k] for r in rows]) for k in rows[0]}
            print(f"  {method:28s}", {k: round(float(v), 3) for k, v in parts.items()}, flush=True)
    name = "pfn_classification_terciles" if options.terciles else "pfn_classification"
    write(name, {"tables": found, "summary": summary(found)})


def summary(found) -> dict[str, dict[str, float]]:
    """Means over tables, and the mean rank of the areas over all draws (1 is best)."""
    # One PFN is ranked: they have the same areas, or nearly.
    names = [m for m in next(iter(found.values())) if m == "PFN" or m not in PFNS]
    draws = [[[row[k] for row in by[m]] for m in names] for by in found.values() for k in ("auc",)]
    ranks = np.concatenate(
        [rankdata(-np.array(table).T, axis=1) for table in draws]
    )  # (draws, methods)
    result = {}
    for j, m in enumerate(names):
        means = {
            k: float(np.mean([np.mean([r[k] for r in by[m]]) for by in found.values()]))
            for k in ("auc", "ece", "log_loss", "accuracy")
        }
        seconds = float(np.median([r["seconds"] for by in found.values() for r in by[m]]))
        result[m] = means | {"mean_rank_auc": float(ranks[:, j].mean()), "seconds": seconds}
        print(f"{m:28s}", {k: round(v, 4) for k, v in result[m].items()})
    return result


if __name__ == "__main__":
    main()
