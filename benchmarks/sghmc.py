"""Steps a second of scale-adapted SGHMC against a torch loop, side by side in one run.

Peer: the sampler of Tran et al. 2022 written here in our own words from the equations of Springenberg
et al. 2016: an nn.Module, a shuffled loader of minibatches, one backward pass a step, gradients
clipped at norm 100, and an update in a Python loop over parameter tensors; and the same with
batches indexed from one tensor instead of the loader. Ours: the program that
`bn.SGHMC` runs, with its minibatches drawn afresh and its statistics. Network 13-100-1 tanh, 506
made-up rows, batch 32, noise known, one chain; steps after the burn-in, as most are. The
first run of each side, with our compilation, is not timed.

    taskset -c 0 python benchmarks/sghmc.py
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import interleaved, write

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference._run import CHUNK, _draw_program, _start
from bayesnet.inference.model import LatentModel

ROWS, INPUTS, HIDDEN, BATCH = 506, 13, 100, 32
NOISE = 0.1**0.5
THIN = 200


class Layer(torch.nn.Module):
    """A product divided by sqrt(fan_in), as in the paper, and a bias."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(fan_in, fan_out))
        self.b = torch.nn.Parameter(torch.randn(fan_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.w / self.w.shape[0] ** 0.5 + self.b


class TorchSGHMC:
    """Scale-adapted SGHMC as a loop over parameter tensors."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, step_size: float, friction: float, indexed: bool
    ) -> None:
        torch.manual_seed(0)
        self.indexed = indexed
        self.net = torch.nn.Sequential(Layer(INPUTS, HIDDEN), torch.nn.Tanh(), Layer(HIDDEN, 1))
        self.step_size, self.friction, self.n = step_size, friction, len(x)
        table = torch.utils.data.TensorDataset(
            torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
        )
        self.loader = torch.utils.data.DataLoader(table, batch_size=BATCH, shuffle=True)
        self.state = {
            p: {k: torch.ones_like(p) for k in ("tau", "g", "v")} | {"r": torch.zeros_like(p)}
            for p in self.net.parameters()
        }

    def batches(self):
        while self.indexed:
            chosen = torch.randint(self.n, (BATCH,))
            yield tuple(column[chosen] for column in self.loader.dataset.tensors)
        while True:
            yield from self.loader

    def run(self, steps: int, adapt: bool = False) -> None:
        for _, (x, y) in zip(range(steps), self.batches(), strict=False):
            self.net.zero_grad()
            fit = ((self.net(x) - y) ** 2).sum() / (2 * NOISE**2) / len(x)
            prior = sum((p**2).sum() for p in self.net.parameters()) / 2 / self.n
            (fit + prior).backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 100.0)
            with torch.no_grad():
                for p, s in self.state.items():
                    self.update(p, s, p.grad * self.n, adapt)

    def update(self, p: torch.Tensor, s: dict, gradient: torch.Tensor, adapt: bool) -> None:
        if adapt:
            rate = 1 / (s["tau"] + 1)
            s["tau"] += 1 - s["tau"] * s["g"] ** 2 / s["v"]
            s["g"] += rate * (gradient - s["g"])
            s["v"] += rate * (gradient**2 - s["v"])
        inverse_mass, square = 1 / torch.sqrt(s["v"]), self.step_size**2
        variance = 2 * square * self.friction * inverse_mass - square**2
        noise = torch.randn_like(p) * torch.sqrt(torch.clamp(variance, min=1e-16))
        s["r"] += -square * inverse_mass * gradient - self.friction * s["r"] + noise
        p += s["r"]


def ours(x: np.ndarray, y: np.ndarray, chains: int):
    """Chunks of draws of the sampling loop, chains in one batch if there are several."""
    prior = bn.NetworkPrior(bn.MLP((HIDDEN,)), in_dim=INPUTS)
    data = make_data(x, y, None, Scaling.identity(INPUTS, 1))
    model = LatentModel(
        prior, bn.GaussianLikelihood(NOISE).bind(data.scaling, data.rows), data.rows
    )
    sampler = bn.SGHMC(batch_size=BATCH, step_size=0.005).chain()
    z = jax.random.normal(jax.random.key(0), (chains, model.size), jnp.float32)
    states = _start(sampler, model, z, None)
    keys = jax.random.split(jax.random.key(1), chains)

    def program(state, key):
        return _draw_program(sampler, THIN, model, state, key, jnp.int32(0), jnp.int32(CHUNK))

    def run() -> None:
        if chains == 1:
            jax.block_until_ready(program(states[0], keys[0]))
        else:
            stacked = jax.tree.map(lambda *a: jnp.stack(a), *states)
            jax.block_until_ready(jax.vmap(program)(stacked, keys))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, INPUTS))
    y = np.sin(x[:, :1]) + NOISE * rng.normal(size=(ROWS, 1))
    peers = [TorchSGHMC(x, y, 0.01, 0.01, indexed) for indexed in (False, True)]
    for peer in peers:
        peer.run(200, adapt=True)
    peer_steps, steps = 500, CHUNK * THIN
    seconds = interleaved(
        {
            "torch": lambda: peers[0].run(peer_steps),
            "torch, indexed": lambda: peers[1].run(peer_steps),
            "bayesnet": ours(x, y, 1),
            "bayesnet, 4 chains": ours(x, y, 4),
        },
        args.repeats,
    )
    for peer in peers:
        assert all(torch.isfinite(p).all() for p in peer.net.parameters())
    rates = {
        "torch": peer_steps / seconds["torch"],
        "torch, indexed": peer_steps / seconds["torch, indexed"],
        "bayesnet": steps / seconds["bayesnet"],
        "bayesnet, 4 chains": 4 * steps / seconds["bayesnet, 4 chains"],
    }
    for name, rate in rates.items():
        print(f"{name:<22}{rate:10.0f} steps/s")
    peer_names = ("torch", "torch, indexed")
    ratios = {
        f"{n} / {peer}": rates[n] / rates[peer]
        for n in rates
        for peer in peer_names
        if n not in peer_names
    }
    for name, ratio in ratios.items():
        print(f"{name:<38}{ratio:6.1f}")
    settings = {"rows": ROWS, "network": [INPUTS, HIDDEN, 1], "batch_size": BATCH}
    write(
        "sghmc",
        {
            "settings": settings,
            "torch_threads": args.threads,
            "steps_per_s": rates,
            "ratios": ratios,
        },
    )


if __name__ == "__main__":
    main()
