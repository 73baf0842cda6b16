"""What every benchmark shares: where it ran, how it times, where its results go."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def context() -> dict[str, Any]:
    """Commit, date, device and versions of a run."""
    import jax

    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    versions = {"jax": jax.__version__, "python": platform.python_version()}
    for name in ("torch", "numpyro", "blackjax", "botorch", "gpytorch"):
        try:
            versions[name] = __import__("importlib.metadata").metadata.version(name)
        except Exception:
            continue
    return {
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{jax.devices()[0].device_kind}, {len(os.sched_getaffinity(0))} core(s)",
        "versions": versions,
    }


def write(name: str, results: Any) -> Path:
    """Keep results with the context of the run."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"context": context(), "results": results}, indent=1) + "\n")
    print(f"wrote {path.relative_to(RESULTS.parents[1])}")
    return path


def interleaved(sides: dict[str, Callable[[], Any]], repeats: int = 15) -> dict[str, float]:
    """Median seconds of each side, run in turn A B A B after one warm-up of each."""
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
