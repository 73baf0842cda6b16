"""Training a deep ensemble against a torch loop over members, side by side in one run.

10 members of 6-128-128-1 relu, 60 points, 1,000 full-batch steps of Adam, noise known. Peer: a
loop over members, each an nn.Module trained by torch.optim.Adam (as by default, and fused).
Ours: `bn.DeepEnsemble` as `bn.fit` runs it, evaluation of the members included. The first run
of each side, with our compilation, is not timed.

    taskset -c 0 python benchmarks/ensemble.py
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
import torch
from _common import interleaved, write

import bayesnet as bn
from bayesnet.data import Scaling, make_data

ROWS, INPUTS, HIDDEN = 60, 6, (128, 128)
MEMBERS, STEPS, NOISE = 10, 1000, 0.1


def torch_loop(x: np.ndarray, y: np.ndarray, fused: bool, members: int):
    xt, yt = (torch.as_tensor(a, dtype=torch.float32) for a in (x, y))

    def one() -> None:
        sizes = (INPUTS, *HIDDEN, 1)
        layers: list[torch.nn.Module] = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        net = torch.nn.Sequential(*layers[:-1])
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=fused)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            fit = ((net(xt) - yt) ** 2).sum() / (2 * NOISE**2)
            decay = sum((p**2).sum() for p in net.parameters()) / 2
            (fit + decay).backward()
            optimizer.step()
            schedule.step()

    return lambda: [one() for _ in range(members)]


def ours(x: np.ndarray, y: np.ndarray, **settings):
    prior = bn.NetworkPrior(bn.MLP(HIDDEN, "relu"), in_dim=INPUTS)
    data = make_data(x, y, None, Scaling.identity(INPUTS, 1))
    method = bn.DeepEnsemble(members=MEMBERS, steps=STEPS, **settings)
    likelihood = bn.GaussianLikelihood(NOISE)
    return lambda: method.fit(prior, likelihood, data, key=jax.random.key(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--torch-members", type=int, default=2, help="trained; times are for 10")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS))
    y = np.sin(x.sum(axis=1, keepdims=True)) + NOISE * rng.normal(size=(ROWS, 1))
    k = args.torch_members
    seconds = interleaved(
        {
            "torch": torch_loop(x, y, False, k),
            "torch, fused Adam": torch_loop(x, y, True, k),
            "bayesnet": ours(x, y),
            "bayesnet, batches of 32": ours(x, y, batch_size=32),
        },
        args.repeats,
    )
    # Members of the loop cost the same each.
    seconds = {n: t * (MEMBERS / k if n.startswith("torch") else 1) for n, t in seconds.items()}
    for name, t in seconds.items():
        print(f"{name:<26}{t:8.2f} s")
    ratios = {f"{n} / bayesnet": seconds[n] / seconds["bayesnet"] for n in seconds if "torch" in n}
    for name, ratio in ratios.items():
        print(f"{name:<34}{ratio:6.1f}")
    write(
        "ensemble",
        {
            "settings": {"rows": ROWS, "members": MEMBERS, "steps": STEPS, "hidden": HIDDEN},
            "torch_threads": args.threads,
            "torch_members_timed": k,
            "seconds": seconds,
            "ratios": ratios,
        },
    )


if __name__ == "__main__":
    main()
