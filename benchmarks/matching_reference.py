"""The reference procedure of functional-prior matching, in torch, as a baseline.

Written from Tran, Rossi, Milios & Filippone (JMLR 23:74, 2022), section 4 and its appendix on
settings: an outer loop moves the standard deviations of weights and biases (one each a layer,
through softplus) by RMSprop; before every outer step the critic's weights are initialised afresh
(Xavier, biases N(0, 1)) and trained on one set of draws at that step's measurement points (Adagrad,
gradient penalty); then the gap between critic means over another set of draws gives the gradient to
the prior. As in the authors' published implementation, Adagrad's accumulators outlive the
re-initialisation, and measurement points are a fixed grid in one dimension.

    python benchmarks/matching_reference.py --setting 1d --seeds 0 1 2

adds to `benchmarks/results/matching_reference.json` the matched scales and the time of each run, so
that `matching.py` can judge them again without running 200 x 200 steps once more.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from matching_settings import SETTINGS, Setting, provenance
from torch.nn.functional import softplus

RESULTS = Path(__file__).parent / "results" / "matching_reference.json"

OUTER_STEPS, CRITIC_STEPS = 200, 200
FUNCTIONS, POINTS = 128, 100
OUTER_RATE, CRITIC_RATE, PENALTY = 0.05, 0.02, 10.0
CRITIC_WIDTH = 200


class Network:
    """Draws of a tanh network in the 1/sqrt(fan_in) form with trainable scales a layer."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes
        self.raw = torch.ones(2 * (len(sizes) - 1), requires_grad=True)

    def scales(self) -> torch.Tensor:
        """Standard deviations in the order (bias, weights) layer by layer."""
        return softplus(self.raw)

    def draw(self, x: torch.Tensor, num: int) -> torch.Tensor:
        """Functions (s, n)."""
        scale = self.scales()
        h = x.expand(num, *x.shape)
        for i, (a, b) in enumerate(zip(self.sizes[:-1], self.sizes[1:], strict=True)):
            weights = torch.randn(num, a, b) * (scale[2 * i + 1] / a**0.5)
            h = torch.baddbmm(torch.randn(num, 1, b) * scale[2 * i], h, weights)
            if i < len(self.sizes) - 2:
                h = torch.tanh(h)
        return h[..., 0]


def target_factor(setting: Setting, x: torch.Tensor) -> torch.Tensor:
    """The Cholesky factor (n, n) of the RBF covariance in float64."""
    scaled = x.double() / setting.lengthscale
    cov = torch.exp(-0.5 * torch.cdist(scaled, scaled) ** 2)
    return torch.linalg.cholesky(cov + 1e-6 * torch.eye(len(x), dtype=torch.float64))


def draw_target(factor: torch.Tensor, num: int) -> torch.Tensor:
    """Functions (s, n) in float32."""
    noise = torch.randn(num, len(factor), dtype=torch.float64)
    return (noise @ factor.T).float()


class Critic:
    """A softplus MLP of the function values, and the optimizer that outlives its weights."""

    def __init__(self, num_values: int) -> None:
        self.net = torch.nn.Sequential(
            torch.nn.Linear(num_values, CRITIC_WIDTH),
            torch.nn.Softplus(),
            torch.nn.Linear(CRITIC_WIDTH, CRITIC_WIDTH),
            torch.nn.Softplus(),
            torch.nn.Linear(CRITIC_WIDTH, 1),
        )
        self.optimizer = torch.optim.Adagrad(self.net.parameters(), lr=CRITIC_RATE)

    def restart(self) -> None:
        for layer in self.net:
            if isinstance(layer, torch.nn.Linear):
                torch.nn.init.xavier_normal_(layer.weight)
                torch.nn.init.normal_(layer.bias)

    def gap(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return self.net(f).mean() - self.net(g).mean()

    def train(self, f: torch.Tensor, g: torch.Tensor) -> None:
        """From scratch: maximise the gap between two sets of draws with slope near 1 (eq. 14)."""
        self.restart()
        for _ in range(CRITIC_STEPS):
            mix = torch.rand(FUNCTIONS, 1)
            between = (mix * f + (1 - mix) * g).requires_grad_(True)
            (slope,) = torch.autograd.grad(self.net(between).sum(), between, create_graph=True)
            penalty = ((slope.norm(dim=1) - 1.0) ** 2).mean()
            loss = PENALTY * penalty - self.gap(f, g)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()


def match(setting: Setting, seed: int, outer_steps: int = OUTER_STEPS) -> dict:
    """Match the network of `setting`; the log scales, and seconds of wall and processor time."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Network((setting.in_dim, *setting.hidden, 1))
    optimizer = torch.optim.RMSprop([network.raw], lr=OUTER_RATE)
    wall, cpu = time.perf_counter(), time.process_time()
    critic = Critic(POINTS)
    for _ in range(outer_steps):
        points = np.linspace(-3, 3, POINTS)[:, None]
        if setting.in_dim > 1:
            points = setting.draw_points(rng, POINTS)
        x = torch.as_tensor(points, dtype=torch.float32)
        factor = target_factor(setting, x)
        f, g = network.draw(x, FUNCTIONS), draw_target(factor, FUNCTIONS)
        with torch.no_grad():
            training = network.draw(x, FUNCTIONS), draw_target(factor, FUNCTIONS)
        critic.train(*training)
        optimizer.zero_grad()
        critic.gap(f, g).backward()
        optimizer.step()
    return {
        "setting": setting.name,
        "seed": seed,
        "log_scales": network.scales().detach().log().tolist(),
        "wall_seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "outer_steps": outer_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--setting", choices=sorted(SETTINGS), nargs="+", default=sorted(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--outer-steps", type=int, default=OUTER_STEPS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for name in arguments.setting:
            run = match(SETTINGS[name], seed, arguments.outer_steps) | provenance()
            kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            kept = [k for k in kept if (k["setting"], k["seed"]) != (name, seed)] + [run]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
            print(run, flush=True)


if __name__ == "__main__":
    main()
