"""The convergence report and the arviz export."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import oracles
import pytest

import bayesnet as bn
from bayesnet.diagnostics.arviz_export import row_log_likelihoods
from bayesnet.diagnostics.convergence import (
    chain_statistics,
    convergence_report,
    import_arviz,
    probe_points,
    quantities,
    warn_if_untrusted,
)

az = import_arviz()


def ar1(rho, c=4, s=2000, k=3, seed=0):
    rng = np.random.default_rng(seed)
    out = np.zeros((c, s, k))
    out[:, 0] = rng.normal(size=(c, k))
    for t in range(1, s):
        out[:, t] = rho * out[:, t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=(c, k))
    return out


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_statistics_of_autoregressive_chains(rho):
    chains = ar1(rho)
    rhat, bulk, tail = chain_statistics(chains)
    for j in range(3):
        assert rhat[j] == pytest.approx(az.rhat(chains[:, :, j]))
        assert bulk[j] == pytest.approx(az.ess(chains[:, :, j], method="bulk"))
        assert tail[j] == pytest.approx(az.ess(chains[:, :, j], method="tail"))
    # The closed form of the effective size of an AR(1) chain.
    np.testing.assert_allclose(bulk, 8000 * (1 - rho) / (1 + rho), rtol=0.3)
    assert (rhat < 1.02).all()


def test_chains_that_disagree_or_stand_still():
    apart = ar1(0.0, s=200)
    apart[0] += 3
    assert (chain_statistics(apart)[0] > 1.2).all()
    stuck = ar1(0.0, s=200)
    stuck[1] = stuck[1, :1]
    assert (chain_statistics(stuck)[0] > 1.05).all()
    still = np.repeat(np.arange(4.0)[:, None, None], 50, axis=1)
    rhat, bulk, _ = chain_statistics(still)
    assert np.isinf(rhat[0])
    assert bulk[0] == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rhat, bulk, tail = chain_statistics(np.ones((4, 50, 1)))
    assert (rhat[0], bulk[0], tail[0]) == (1.0, 200, 200)


def test_one_chain_is_compared_with_itself():
    drifting = ar1(0.0, c=1, s=200)
    drifting[0] += np.linspace(0, 8, 200)[:, None]
    assert (chain_statistics(drifting)[0] > 1.2).all()
    assert (chain_statistics(ar1(0.0, c=1, s=400))[0] < 1.05).all()


def test_the_probe_set_is_fixed_and_inside_its_regions():
    x = np.random.default_rng(0).uniform(-1, 3, (40, 2))
    a, b = probe_points(x), probe_points(x)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    middle, half = (x.max(0) + x.min(0)) / 2, (x.max(0) - x.min(0)) / 2
    inside = np.abs(a["points in the box"] - middle) / half
    twice = np.abs(a["points in twice the box"] - middle) / half
    assert inside.max() <= 1
    assert 1 < twice.max() <= 2
    assert np.isin(a["training rows"], x).all()


def test_monitored_quantities_by_hand(small_posterior):
    found = quantities(small_posterior)
    post = small_posterior
    assert list(found) == [
        "f at training rows",
        "f at points in the box",
        "f at points in twice the box",
        "log likelihood",
        "log prior",
        "noise_std",
    ]
    z = post.latents.astype(float)
    np.testing.assert_allclose(found["log prior"][..., 0], -0.5 * (z**2).sum(-1), rtol=1e-6)
    total = found["log likelihood"][..., 0] + found["log prior"][..., 0]
    np.testing.assert_allclose(total, post.stats["log_density"], rtol=1e-4, atol=1e-2)
    # The likelihood of scaled rows, in NumPy.
    f = post.scaled_functions(post.data.x)
    noise = np.exp(found["noise_std"]).reshape(-1, 1, 2)
    rows = oracles.normal_log_density(post.data.y, f, noise**2).sum(-1)
    np.testing.assert_allclose(row_log_likelihoods(post).reshape(rows.shape), rows, rtol=1e-3)
    np.testing.assert_allclose(found["log likelihood"].ravel(), rows.sum(-1), rtol=1e-4, atol=1e-2)


def with_latents(post, latents, **changes):
    stats = {k: v[:, : latents.shape[1]] for k, v in post.stats.items()}
    return dataclasses.replace(post, latents=latents, **({"stats": stats} | changes))


def prior_draws(post, chains=4, draws=300):
    rng = np.random.default_rng(0)
    return rng.normal(size=(chains, draws, post.latents.shape[-1])).astype(np.float32)


def test_a_good_run_has_no_problems_and_does_not_warn(small_posterior):
    good = with_latents(small_posterior, prior_draws(small_posterior), stats={})
    report = convergence_report(good)
    assert report.ok, report.problems
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_untrusted(good)
    assert "4 chains x 300 draws" in str(report)


def damaged(post, what):
    z = prior_draws(post)
    if what == "stuck":
        z[2] = z[2, :1]
        return with_latents(post, z, stats={})
    if what == "few":
        return with_latents(post, z[:, :20], stats={})
    if what == "two draws":
        return with_latents(post, z[:, :2], stats={})
    if what == "divergent":
        return with_latents(post, z, stats={"divergent": np.arange(1200).reshape(4, 300) % 10 == 0})
    if what == "interrupted":
        return with_latents(post, z, stats={}, interrupted=True)
    z[0, 0, 0] = np.nan
    return with_latents(post, z, stats={})


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("stuck", "chains disagree"),
        ("few", "few effective draws"),
        ("two draws", "2 draws a chain are too few"),
        ("divergent", "10.0% of draws diverged"),
        ("interrupted", "interrupted"),
        ("not finite", "not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_untrusted_runs_warn_once_in_words(small_posterior, what, words):
    bad = damaged(small_posterior, what)
    report = convergence_report(bad)
    assert not report.ok
    assert any(words in p for p in report.problems), report.problems
    assert f"! {report.problems[0]}" in str(report)
    with pytest.warns(bn.ConvergenceWarning, match=words) as caught:
        warn_if_untrusted(bad)
    assert len([w for w in caught if w.category is bn.ConvergenceWarning]) == 1


def test_export_to_arviz(small_posterior):
    data = small_posterior.to_arviz()
    assert set(data.groups()) == {"posterior", "sample_stats", "log_likelihood", "observed_data"}
    assert data.posterior["noise_std"].shape == (2, 50, 2)
    assert data.posterior["f_at_training_rows"].shape == (2, 50, 32)
    assert data.log_likelihood["y"].shape == (2, 50, 20)  # true rows, not padded ones
    assert data.sample_stats["diverging"].dtype == bool
    assert data.observed_data["y"].shape == (20, 2)
    np.testing.assert_allclose(data.observed_data["y"][:, 0], 100, atol=15)  # units of the user
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loo = az.loo(data)
    assert np.isfinite(loo.elpd_loo)
    assert loo.n_data_points == 20
