"""Time per gradient of the log posterior against torch, side by side in one run.

Peer: the torch loop in double precision of the BNN surrogate study (Li et al. 2024), written
here from its description: an nn.Module, one backward pass a leapfrog step, momenta as a list
of tensors. Ours: one trajectory of the kernel that `bn.HMC` runs, padded to its bucket. Both
sides count a leapfrog step as one gradient. Network 6-128-128-128-1 tanh, 60 points, one
chain, known noise.

    taskset -c 0 python benchmarks/gradient.py
"""

from __future__ import annotations

import argparse

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from _common import interleaved, write

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.inference.model import LatentModel

SIZES = (6, 128, 128, 128, 1)
STEPS = 200
EPS = 1e-6


def torch_leapfrog(x: np.ndarray, y: np.ndarray, dtype: torch.dtype, steps: int = 20):
    """Leapfrog steps over a list of parameter tensors, one backward pass a step."""
    xt, yt = torch.as_tensor(x, dtype=dtype), torch.as_tensor(y, dtype=dtype)
    layers: list[torch.nn.Module] = []
    for a, b in zip(SIZES[:-1], SIZES[1:], strict=True):
        layers += [torch.nn.Linear(a, b, dtype=dtype), torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers[:-1])
    params = list(net.parameters())
    inverse_mass = [torch.ones_like(p) for p in params]

    std = torch.tensor(0.1, dtype=dtype)
    size = sum(p.numel() for p in params)

    def gradient() -> list[torch.Tensor]:
        net.zero_grad()
        prior = -0.5 * sum((p**2).sum() for p in params) - 0.5 * size * np.log(2 * np.pi)
        normalizer = torch.log(std**2 * 2 * np.pi)
        likelihood = (-0.5 * (net(xt) - yt) ** 2 / std**2 - 0.5 * normalizer).sum()
        (prior + likelihood).backward()
        return [p.grad.clone() for p in params]

    def run() -> None:
        momentum, grad = [torch.randn_like(p) for p in params], gradient()
        for _ in range(steps):
            momentum = [m + 0.5 * EPS * g for m, g in zip(momentum, grad, strict=True)]
            for p, m, scale in zip(params, momentum, inverse_mass, strict=True):
                p.data += EPS * scale * m
            grad = gradient()
            momentum = [m + 0.5 * EPS * g for m, g in zip(momentum, grad, strict=True)]

    return run, steps + 1


def our_leapfrog(x: np.ndarray, y: np.ndarray, x64: bool):
    """One trajectory of `bn.HMC`'s kernel in our model, noise known."""
    dtype = jnp.float64 if x64 else jnp.float32
    with jax.enable_x64(x64):
        prior = bn.NetworkPrior(bn.MLP(SIZES[1:-1]), in_dim=SIZES[0])
        data = make_data(x, y, None, Scaling.identity(SIZES[0], 1), dtype=dtype)
        likelihood = bn.GaussianLikelihood(0.1).bind(data.scaling, data.rows)
        model = LatentModel(prior, likelihood, data.rows)

        @eqx.filter_jit
        def trajectory(model, state, key, inverse_mass):
            kernel = blackjax.hmc.build_kernel()
            return kernel(key, state, model.log_density, EPS, inverse_mass, STEPS)[0]

        z = jax.random.normal(jax.random.key(0), (model.size,), dtype)
        state = blackjax.hmc.init(z, model.log_density)

    def run() -> None:
        with jax.enable_x64(x64):
            jax.block_until_ready(trajectory(model, state, jax.random.key(1), jnp.ones_like(z)))

    return run, STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 6)), rng.normal(size=(60, 1))
    runs = {
        "torch float64": torch_leapfrog(x, y, torch.float64),
        "torch float32": torch_leapfrog(x, y, torch.float32),
        "bayesnet float32": our_leapfrog(x, y, False),
        "bayesnet float64": our_leapfrog(x, y, True),
    }
    torch.set_num_threads(args.threads)
    seconds = interleaved({name: run for name, (run, _) in runs.items()}, args.repeats)
    each = {name: seconds[name] / runs[name][1] * 1e6 for name in runs}
    for name, us in each.items():
        print(f"{name:<18}{us:10.1f} us per gradient")
    ratios = {
        "torch float64 / bayesnet float32": each["torch float64"] / each["bayesnet float32"],
        "torch float32 / bayesnet float32": each["torch float32"] / each["bayesnet float32"],
        "torch float64 / bayesnet float64": each["torch float64"] / each["bayesnet float64"],
    }
    for name, ratio in ratios.items():
        print(f"{name:<36}{ratio:6.1f}")
    write("gradient", {"torch_threads": args.threads, "us_per_gradient": each, "ratios": ratios})


if __name__ == "__main__":
    main()
