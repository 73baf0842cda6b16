"""Time to the PFN's log density: the weights `bnn` beside numpyro's NUTS and SVI on the same network prior.

    taskset -c 0 python benchmarks/pfn_bnn_speed.py [--tables 4] [--dims 1 2] [--rows 30]

Tables drawn from one network of the prior of `bnn`, 32 x 16 new observations each (as `pfn_network.py`). Both peers are told
which network, and are given growing budgets; what counts is the seconds of the first budget whose mean log
density is not below the PFN's by more than 0.01 nats, and a peer that never gets there is reported with its best and the seconds of its
last. NUTS: one chain, equal warm-up and draws, trees of depth 8. SVI: a diagonal Gaussian over weights and noise, Adam at 0.01, 256
draws of it predict. Seconds are of a second run, without compilation.
"""

from __future__ import annotations

import argparse
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from _common import write
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDiagonalNormal
from pfn_network import draw_tables, log_density

import bayesnet as bn
from bayesnet.data import Scaling
from bayesnet.pfn.configurations import read_configuration

NUTS_BUDGETS, SVI_BUDGETS = (25, 50, 100, 200, 400), (250, 1000, 4000, 16000)
CLOSE, PREDICTED = 0.01, 256


def model_of(prior, law):
    def model(x, y):
        size = prior.latent_size
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([size]).to_event(1))
        level = numpyro.sample("level", dist.Normal(law.loc, law.scale))
        numpyro.sample("y", dist.Normal(prior.apply(z, x)[:, 0], jnp.exp(level)), obs=y)

    return model


def mixture_density(prior, draws, new, targets):
    """Mean log density of targets (q, t) under the mixture over draws."""
    f = jax.vmap(lambda z: prior.apply(z, new)[:, 0])(draws["z"])
    law = dist.Normal(f[:, :, None], jnp.exp(draws["level"])[:, None, None])
    each = jax.nn.logsumexp(law.log_prob(targets), axis=0) - jnp.log(len(f))
    return each.mean()


class Peers:
    """Compiled once for a prior and a size of tables."""

    def __init__(self, prior, law):
        model = model_of(prior, law)
        self.samplers = {
            n: MCMC(
                NUTS(model, max_tree_depth=8),
                num_warmup=n,
                num_samples=n,
                progress_bar=False,
                jit_model_args=True,
            )
            for n in NUTS_BUDGETS
        }
        self.guide = AutoDiagonalNormal(model)
        svi = SVI(model, self.guide, numpyro.optim.Adam(0.01), Trace_ELBO())

        def fit(key, x, y, steps):
            state = svi.init(key, x, y)
            state = jax.lax.fori_loop(0, steps, lambda _, s: svi.update(s, x, y)[0], state)
            return self.guide.sample_posterior(
                key, svi.get_params(state), sample_shape=(PREDICTED,)
            )

        self.fit = jax.jit(fit)
        self.score = jax.jit(lambda draws, new, t: mixture_density(prior, draws, new, t))

    def nuts(self, budget, x, y):
        self.samplers[budget].run(jax.random.key(0), x, y)
        return self.samplers[budget].get_samples()

    def svi(self, budget, x, y):
        return self.fit(jax.random.key(0), x, y, budget)

    def until(self, peer, budgets, goal, x, y, new, targets):
        """Budget, seconds and log density where the goal is reached, or of the last."""
        best = -np.inf
        for budget in budgets:

            def run(budget=budget):
                draws = getattr(self, peer)(budget, x, y)
                return float(self.score(draws, new, targets))

            run()
            start = time.perf_counter()
            value = run()
            seconds = time.perf_counter() - start
            best = max(best, value)
            if value >= goal - CLOSE:
                return {"budget": budget, "seconds": seconds, "density": value, "reached": True}
        return {"budget": budget, "seconds": seconds, "density": best, "reached": False}


def study(pfn, tasks, d, rows, tables, seed):
    law, peers, found = tasks.likelihood.noise_std, {}, []
    for x, y, new, targets, exact, prior in draw_tables(tasks, d, rows, tables, seed):
        scaling = Scaling.identity(d, 1)

        def instant(x=x, y=y, new=new, scaling=scaling):
            return pfn.fit(x, y, scaling=scaling, warn=False).predict(new, warn=False)

        instant()
        times = []
        for _ in range(7):
            start = time.perf_counter()
            prediction = instant()
            times.append(time.perf_counter() - start)
        goal = float(log_density(prediction, targets).mean())
        side = peers.setdefault(prior.network.activation, None) or Peers(prior, law)
        peers[prior.network.activation] = side
        arrays = [jnp.asarray(a, jnp.float32) for a in (x, y, new, targets)]
        row = {
            "d": d,
            "n": rows,
            "network": prior.network.activation,
            "pfn": {"seconds": float(np.median(times)), "below_noise": float(exact.mean()) - goal},
            "nuts": side.until("nuts", NUTS_BUDGETS, goal, *arrays),
            "svi": side.until("svi", SVI_BUDGETS, goal, *arrays),
        }
        for peer in ("nuts", "svi"):
            row[peer]["below_noise"] = float(exact.mean()) - row[peer].pop("density")
        found.append(row)
        print(row, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=4)
    parser.add_argument("--dims", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--seed", type=int, default=21)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    pfn = bn.PFN.from_pretrained("bnn")
    tasks = read_configuration("bnn").tasks
    rows = []
    for d in options.dims:
        rows += study(pfn, tasks, d, options.rows, options.tables, options.seed)
    for peer in ("nuts", "svi"):
        ratios = [r[peer]["seconds"] / r["pfn"]["seconds"] for r in rows]
        reached = sum(r[peer]["reached"] for r in rows)
        print(peer, "reached", reached, "of", len(rows), "ratios", np.round(ratios))
    write("pfn_bnn_speed", rows)


if __name__ == "__main__":
    main()
