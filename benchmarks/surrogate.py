"""The gradient of an acquisition: bayesnet's bridge against torch's batched matrix products.

    python benchmarks/surrogate.py

Forward and backward of a random cotangent through 128 draws of a 6-128-128-128-1 tanh network
at 80 points, float32 on both sides, from a torch tensor X to its gradient: the bridge (values
and input gradients in one JAX program, padding, conversion and contraction included) and the
same weights by `torch.baddbmm` and autograd. The sides are checked to agree, then timed in turn
in one process; compilation is apart. Each number of threads runs in a process of its own that
is pinned to as many cores. Medians of wall and of processor time; the bar is a ratio of 1.5.
Results go to `benchmarks/results/surrogate.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from matching_settings import provenance

RESULTS = Path(__file__).parent / "results" / "surrogate.json"
DRAWS, POINTS, IN_DIM, HIDDEN = 128, 80, 6, (128, 128, 128)
REPEATS, BAR = 60, 1.5


def measure() -> dict[str, float]:
    """Both sides in this process, on the cores that it may use."""
    import jax
    import jax.numpy as jnp
    import torch

    import bayesnet as bn
    from bayesnet.surrogates import Bridge

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    prior = bn.NetworkPrior(bn.MLP(hidden=HIDDEN), in_dim=IN_DIM, out_dim=1)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(DRAWS, prior.latent_size)).astype(np.float32)
    points = torch.tensor(rng.normal(size=(POINTS, IN_DIM)), dtype=torch.float32)
    cotangent = torch.tensor(rng.normal(size=(DRAWS, POINTS, 1)), dtype=torch.float32)

    layers = jax.vmap(prior.law.decode)(jnp.asarray(latents))
    weights = [
        (
            torch.tensor(np.asarray(p["w"])) / p["w"].shape[1] ** 0.5,
            torch.tensor(np.asarray(p["b"])),
        )
        for p in layers
    ]
    bridge = Bridge(prior, latents)

    def by_bridge() -> torch.Tensor:
        x = points.clone().requires_grad_()
        (bridge(x) * cotangent).sum().backward()
        return x.grad

    def by_torch() -> torch.Tensor:
        x = points.clone().requires_grad_()
        h = x.expand(DRAWS, POINTS, IN_DIM)
        for i, (w, b) in enumerate(weights):
            h = torch.baddbmm(b[:, None], h, w)
            if i < len(weights) - 1:
                h = torch.tanh(h)
        (h * cotangent).sum().backward()
        return x.grad

    began = time.perf_counter()
    ours = by_bridge()
    compile_seconds = time.perf_counter() - began
    torch.testing.assert_close(ours, by_torch(), rtol=1e-3, atol=1e-3)
    sides = {"bridge": by_bridge, "torch": by_torch}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for repeat in range(REPEATS + 5):
        for name, side in sides.items():
            wall, cpu = time.perf_counter(), time.process_time()
            side()
            spent = (time.perf_counter() - wall, time.process_time() - cpu)
            if repeat >= 5:
                times[name].append(spent)
    result = {"first_call_seconds": compile_seconds}
    for name, spent in times.items():
        array = 1e3 * np.array(spent)
        result[f"{name}_wall_ms"], result[f"{name}_cpu_ms"] = np.median(array, axis=0)
        result[f"{name}_fastest_ms"] = array[:, 0].min()
    for kind in ("wall", "cpu", "fastest"):
        result[f"ratio_{kind}"] = result[f"bridge_{kind}_ms"] / result[f"torch_{kind}_ms"]
    return {k: round(float(v), 3) for k, v in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure()))
        return
    runs = []
    cores = sorted(os.sched_getaffinity(0))
    for threads in args.threads:
        own = set(cores[:threads])
        out = subprocess.run(
            [sys.executable, __file__, "--child"],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda own=own: os.sched_setaffinity(0, own),
        )
        row = {**provenance(), "threads": threads, "load": round(os.getloadavg()[0], 1)}
        row.update(json.loads(out.stdout.splitlines()[-1]))
        runs.append(row)
        print(
            f"{threads} thread(s): bridge {row['bridge_wall_ms']:.1f} ms, torch baddbmm "
            f"{row['torch_wall_ms']:.1f} ms (medians), ratio {row['ratio_wall']:.2f} wall, "
            f"{row['ratio_cpu']:.2f} processor, {row['ratio_fastest']:.2f} fastest; bar {BAR}; "
            f"compilation {row['first_call_seconds']:.1f} s"
        )
    setting = {
        "draws": DRAWS,
        "points": POINTS,
        "network": [IN_DIM, *HIDDEN, 1],
        "dtype": "float32",
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"setting": setting, "bar": BAR, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
