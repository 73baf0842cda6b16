"""Effective samples a second of function values: our HMC against numpyro's NUTS.

The same model on both sides (MLP 1-50-50-1 tanh in latent coordinates, 60 points): the
minimum over 20 fixed held-out points of the bulk effective sample size, divided by the
seconds of sampling (and by those of warm-up and sampling), compilation apart. A seed counts
only if R-hat is below 1.05 at every point on both sides.

    taskset -c 0 python benchmarks/samplers.py --seeds 5
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import write
from numpyro.infer import MCMC
from numpyro.infer import NUTS as NumpyroNUTS

import bayesnet as bn
from bayesnet.data import Scaling, make_data
from bayesnet.diagnostics.convergence import chain_statistics
from bayesnet.inference._run import run_chains
from bayesnet.inference.model import LatentModel
from bayesnet.posterior.draws import evaluate

CHAINS = 4


def problem(learned_noise: bool) -> tuple[LatentModel, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (60, 1))
    y = np.sin(3 * x) + 0.1 * rng.normal(size=x.shape)
    prior = bn.NetworkPrior(bn.MLP((50, 50)), in_dim=1)
    data = make_data(x, y, None, Scaling.from_data(x, y), pad=False)
    noise = bn.GaussianLikelihood(None if learned_noise else 0.1)
    model = LatentModel(prior, noise.bind(data.scaling, data.rows), data.rows)
    return model, data.scaling.x_in(np.linspace(-2.2, 2.2, 20)[:, None])


def ours(model: LatentModel, seed: int, method) -> dict:
    def go(warmup: int, draws: int):
        return run_chains(
            method.chain(),
            model,
            key=jax.random.key(seed),
            chains=CHAINS,
            warmup=warmup,
            draws=draws,
        )

    run = go(method.warmup, method.draws)
    return {
        "latents": run.latents,
        "warmup": run.seconds["warmup"],
        "sampling": run.seconds["sampling"],
        "compile": run.seconds["compile"],
        "gradients": float(run.stats["num_gradients"].mean()),
    }


def numpyro_nuts(model: LatentModel, seed: int, warmup: int, draws: int) -> dict:
    def numpyro_model():
        z = numpyro.sample("z", dist.Normal(0, 1).expand([model.size]).to_event(1))
        numpyro.factor("likelihood", model.log_likelihood(z))

    kernel = NumpyroNUTS(numpyro_model)
    mcmc = MCMC(
        kernel, num_warmup=warmup, num_samples=draws, num_chains=CHAINS,
        chain_method="sequential", progress_bar=False,
    )  # fmt: skip
    start = time.perf_counter()
    mcmc.warmup(jax.random.key(1000 + seed))
    warm = time.perf_counter() - start
    start = time.perf_counter()
    mcmc.run(jax.random.key(2000 + seed), extra_fields=("num_steps",))
    latents = np.asarray(mcmc.get_samples(group_by_chain=True)["z"])
    return {
        "latents": latents,
        "warmup": warm,  # compilation is inside: numpyro gives no way to tell it apart
        "sampling": time.perf_counter() - start,
        "compile": float("nan"),
        "gradients": float(np.mean(mcmc.get_extra_fields()["num_steps"])),
    }


def judge(model: LatentModel, probe: np.ndarray, out: dict) -> dict:
    z = out.pop("latents")
    f = evaluate(
        model.prior, model.split(z.reshape(-1, model.size))[0], jax.numpy.asarray(probe, "float32")
    )
    rhat, bulk, _ = chain_statistics(np.asarray(f)[..., 0].reshape(*z.shape[:2], -1))
    return out | {
        "rhat": float(rhat.max()),
        "ess_min": float(bulk.min()),
        "ess_median": float(np.median(bulk)),
        "ess_min_per_s": float(bulk.min() / out["sampling"]),
        "ess_median_per_s": float(np.median(bulk) / out["sampling"]),
        "ess_min_per_s_with_warmup": float(bulk.min() / (out["sampling"] + out["warmup"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--numpyro-warmup", type=int, default=300)
    parser.add_argument("--numpyro-draws", type=int, default=200)
    parser.add_argument("--skip-numpyro", action="store_true")
    parser.add_argument("--nuts", action="store_true", help="our NUTS too")
    parser.add_argument("--learned-noise", action="store_true")
    args = parser.parse_args()
    model, probe = problem(args.learned_noise)
    rows = []
    for seed in range(args.seeds):
        sides = {"bayesnet HMC": lambda: ours(model, seed, bn.HMC(draws=args.draws))}
        if args.nuts:
            sides["bayesnet NUTS"] = lambda: ours(model, seed, bn.NUTS(warmup=300, draws=200))
        if not args.skip_numpyro:
            sides["numpyro NUTS"] = lambda: numpyro_nuts(
                model,
                seed,
                args.numpyro_warmup,
                args.numpyro_draws,
            )
        for name, side in sides.items():
            row = {"side": name, "seed": seed} | judge(model, probe, side())
            rows.append(row)
            print(
                {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True
            )
    summary = {}
    for name in {r["side"] for r in rows}:
        mine = [r for r in rows if r["side"] == name]
        summary[name] = {
            key: float(np.median([r[key] for r in mine]))
            for key in (
                "ess_min_per_s",
                "ess_median_per_s",
                "ess_min_per_s_with_warmup",
                "gradients",
            )
        } | {"converged": sum(r["rhat"] < 1.05 for r in mine), "seeds": len(mine)}
        print(name, summary[name])
    if not args.skip_numpyro:
        per_seed = [
            next(r for r in rows if r["seed"] == s and r["side"] == "bayesnet HMC")["ess_min_per_s"]
            / next(r for r in rows if r["seed"] == s and r["side"] == "numpyro NUTS")[
                "ess_min_per_s"
            ]
            for s in range(args.seeds)
        ]
        print("ratio of minimum ESS/s, by seed:", np.round(per_seed, 1))
        summary["ratio"] = per_seed
        write(
            "samplers_learned_noise" if args.learned_noise else "samplers",
            {"summary": summary, "rows": rows},
        )


if __name__ == "__main__":
    main()
