"""What a layer of an infinitely wide network costs, in products of the inputs with themselves.

    python benchmarks/kernels.py

NNGP and NTK of a fully connected relu network of 5 hidden layers on 2,000 inputs of 784 columns, in float64, against
`X @ X.T` in JAX in float64, the same threads, timed in turn in one process, compilation apart,
medians of wall and of processor time:

    ratio = (seconds of both kernels - seconds of X @ X.T) / layers / seconds of X @ X.T

The bar is 1.1. Results go to `benchmarks/results/kernels.json`.
"""

from __future__ import annotations

import argparse
import os
import time

import jax
import numpy as np
from _common import write

import bayesnet as bn

ROWS, COLUMNS, LAYERS, BAR = 2000, 784, 5, 1.1


def measure(repeats: int) -> dict[str, float]:
    from bayesnet.kernels.programs import both_program

    kernel = bn.kernels.NTK(depth=LAYERS, activation="relu")
    bare = kernel.bare()
    with jax.enable_x64(True):
        x = jax.numpy.asarray(np.random.default_rng(0).normal(size=(ROWS, COLUMNS)))
        product = jax.jit(lambda a: a @ a.T)
        hyper = jax.tree.map(jax.numpy.asarray, kernel.hyper)

        def ours() -> None:
            jax.block_until_ready(both_program(bare, hyper, x, x))

        began = time.perf_counter()
        ours()
        first = time.perf_counter() - began
        sides = {"kernels": ours, "product": lambda: product(x).block_until_ready()}
        spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for repeat in range(repeats + 1):
            for name, side in sides.items():
                wall, cpu = time.perf_counter(), time.process_time()
                side()
                if repeat:
                    now = (time.perf_counter() - wall, time.process_time() - cpu)
                    spent[name].append(now)
        assert both_program(bare, hyper, x, x)[1].dtype == "float64"
    result = {"first_call_seconds": first, "load": os.getloadavg()[0]}
    medians = {name: np.median(times, axis=0) for name, times in spent.items()}
    for i, kind in enumerate(("wall", "cpu")):
        both, one = (medians[name][i] for name in sides)
        layer = (both - one) / LAYERS
        result |= {f"kernels_{kind}_ms": 1e3 * both, f"product_{kind}_ms": 1e3 * one}
        result |= {f"layer_{kind}_ms": 1e3 * layer, f"ratio_{kind}": layer / one}
    return {name: round(float(value), 3) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--dry", action="store_true", help="print, keep nothing")
    args = parser.parse_args()
    row = measure(args.repeats)
    for kind in ("wall", "cpu"):
        print(
            f"{kind}: NNGP and NTK, {LAYERS} relu layers, {ROWS} x {COLUMNS} float64: "
            f"{row[f'kernels_{kind}_ms']:.0f} ms; X @ X.T {row[f'product_{kind}_ms']:.0f} ms; a layer "
            f"{row[f'layer_{kind}_ms']:.0f} ms = {row[f'ratio_{kind}']:.2f} products (bar {BAR})"
        )
    print(f"first call {row['first_call_seconds']:.1f} s; load {row['load']:.1f}")
    if not args.dry:
        setting = {"rows": ROWS, "columns": COLUMNS, "layers": LAYERS, "dtype": "float64"}
        write("kernels", {"setting": setting, "bar": BAR, "run": row})


if __name__ == "__main__":
    main()
