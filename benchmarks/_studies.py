"""What the studies of accuracy share: results kept row by row, convergence, paired differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import RESULTS, context


def run(name: str, jobs: dict[tuple[Any, ...], Callable[[], dict]], fields: tuple[str, ...]):
    """Do each job whose key has no row yet in `results/<name>.json`; all rows.

    Rows are kept as soon as they are made, so that a study can be resumed.
    """
    path = RESULTS / f"{name}.json"
    RESULTS.mkdir(exist_ok=True)

    def kept() -> list[dict]:
        return json.loads(path.read_text())["results"] if path.exists() else []

    for key, job in jobs.items():
        if any(tuple(r[f] for f in fields) == key for r in kept()):
            continue
        row = dict(zip(fields, key, strict=True)) | job()
        print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
        # Read again: another part of the study may have been run meanwhile.
        text = json.dumps({"context": context(), "results": [*kept(), row]}, indent=1)
        path.with_suffix(".part").write_text(text + "\n")
        path.with_suffix(".part").replace(path)
    return kept()


def convergence(posterior: Any) -> dict[str, float]:
    """R-hat and bulk effective sample size of function values at training rows, the worst one."""
    report = posterior.diagnostics()
    if not hasattr(report, "divergent"):
        return {}  # members of an ensemble are no draws of a chain
    worst = next(r for r in report.rows if r.name == "f at training rows")
    return {"rhat_f": worst.rhat, "ess_f": worst.ess_bulk, "divergent": report.divergent}


def table(rows: list[dict], columns: tuple[str, ...]) -> None:
    """Mean and sd of each column by arm, and the worst R-hat."""
    for arm in dict.fromkeys(r["arm"] for r in rows):
        mine = [r for r in rows if r["arm"] == arm]
        cells = []
        for name in columns:
            values = np.array([r[name] for r in mine if r.get(name) is not None])
            if len(values):
                spread = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
                cells.append(f"{name} {values.mean():.4f}{spread}")
        hats = [r["rhat_f"] for r in mine if "rhat_f" in r]
        worst = f"  R-hat f median {np.median(hats):.2f}, worst {max(hats):.2f}" if hats else ""
        print(f"  {arm:<18}{'  '.join(cells)}  n={len(mine)}{worst}")


def paired(
    rows: list[dict], arm: str, base: str, column: str, by: str, test_share: float | None = None
) -> tuple[float, float, int]:
    """Mean of `base` minus `arm` over what both have, its error, and over how many.

    The error is Nadeau and Bengio's if `test_share` is given (splits of one table overlap), else that
    of independent repetitions.
    """
    from bayesnet.diagnostics.scores import corrected_error

    sides = [{r[by]: r[column] for r in rows if r["arm"] == a} for a in (base, arm)]
    common = sorted(set(sides[0]) & set(sides[1]))
    gain = np.array([sides[0][s] - sides[1][s] for s in common])
    if test_share is None:
        error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    else:
        error = corrected_error(gain, test_share)
    return float(gain.mean()), error, len(gain)
