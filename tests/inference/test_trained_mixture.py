"""Mixtures of ensembles of trained networks: drawn last-layer scales, infinite and finite widths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayesnet as bn

RNG = np.random.default_rng(0)
X = RNG.uniform(-1.5, 1.5, (7, 2))
Y = np.sin(2 * X[:, 0])
NEW = RNG.uniform(-2, 2, (4, 2))
KERNEL = bn.kernels.NTK(depth=1, activation="erf", units="data")
LAW = bn.InverseGamma(3.0, 3.0)
NOISE = bn.GaussianLikelihood(0.3)


def fit(prior, **options):
    method = bn.NTKEnsemble(restarts=0)
    return bn.fit(prior, X, Y, inference=method, **{"likelihood": NOISE, **options})


@pytest.mark.parametrize("noise", ["inside", "outside"])
def test_the_law_is_that_of_trained_draws_with_scales_from_the_prior(noise):
    """Start `sqrt(s) f0`, moved by the flow of the tangent kernel s T, s from its prior law."""
    post = fit(bn.ScaleMixture(KERNEL, LAW, noise=noise))
    both = np.concatenate([X, NEW])
    start, tangent = (np.asarray(k, np.float64) for k in KERNEL.both(both, both)[:2])
    num = 4000
    s = 3.0 / RNG.gamma(3.0, size=num)
    f0 = np.sqrt(s)[:, None] * (RNG.normal(size=(num, 11)) @ np.linalg.cholesky(start).T)
    ridge = 0.09 * (s if noise == "inside" else np.ones(num))
    inner = s[:, None, None] * tangent[:7, :7] + ridge[:, None, None] * np.eye(7)
    moved = np.linalg.solve(inner, (Y - f0[:, :7])[:, :, None])[:, :, 0]
    ends = f0[:, 7:] + s[:, None] * (moved @ tangent[:7, 7:])
    pred = post.predict(NEW)
    drawn = pred.sample(1, num, noise=False)[:, :, 0]
    for i in range(4):
        assert stats.ks_2samp(ends[:, i], drawn[:, i]).pvalue > 1e-3
    # Joint, not only marginal: differences of two points.
    assert stats.ks_2samp(ends[:, 0] - ends[:, 3], drawn[:, 0] - drawn[:, 3]).pvalue > 1e-3
    if noise == "inside":
        np.testing.assert_allclose(pred.df, 6.0)  # not 6 + n: no row was conditioned on


def test_a_known_scale_is_another_kernel():
    """sqrt(s) at the last layer, weights and biases, of the network itself."""
    post = fit(bn.ScaleMixture(KERNEL, 2.0, noise="outside"))
    root = np.sqrt(2.0)
    same = bn.kernels.NTK(
        depth=1,
        activation="erf",
        units="data",
        weight_std=(1.4, 1.4 * root),
        bias_std=(0.3, 0.3 * root),
    )
    mean, cov = fit(same).joint(NEW)
    np.testing.assert_allclose(post.joint(NEW)[0], mean, rtol=1e-6)
    np.testing.assert_allclose(post.joint(NEW)[1], cov, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(post.predict(NEW).std, fit(same).predict(NEW).std, rtol=1e-6)


def test_inside_the_mean_is_that_of_the_plain_ensemble_and_quadrature_is_the_closed_form():
    plain, inside = fit(KERNEL), fit(bn.ScaleMixture(KERNEL, LAW))
    np.testing.assert_allclose(inside.predict(NEW).mean, plain.predict(NEW).mean)
    np.testing.assert_allclose(
        inside.joint(NEW)[1], 1.5 * plain.joint(NEW)[1]
    )  # E[s] = b / (a - 1)

    class Same:
        shape = ()
        sample = LAW.sample
        log_density = staticmethod(LAW.log_density)

    other = fit(bn.ScaleMixture(KERNEL, Same()))
    y = inside.predict(NEW).mean + 0.5
    np.testing.assert_allclose(
        other.predict(NEW).log_prob(y), inside.predict(NEW).log_prob(y), atol=1e-5
    )


def test_it_is_saved_and_what_it_cannot_do_is_said(tmp_path):
    post = fit(bn.ScaleMixture(KERNEL, bn.Gamma(2.0, 2.0), noise="outside"), likelihood=None)
    post.save(tmp_path / "post")
    again = bn.load(tmp_path / "post")
    np.testing.assert_array_equal(again.predict(NEW).std, post.predict(NEW).std)
    with pytest.raises(bn.UnsupportedError, match="no evidence"):
        _ = post.log_evidence
    with pytest.raises(bn.UnsupportedError, match="NNGP"):
        fit(bn.ScaleMixture(KERNEL.nngp, LAW))
    with pytest.raises(bn.UnsupportedError, match="importance_samples"):
        bn.fit(KERNEL, X, Y, inference=bn.NTKEnsemble(importance_samples=100))


def finite(width):
    weights = bn.weights.ScaledLastLayer(LAW)
    return bn.NetworkPrior(KERNEL.finite(width, 2).network, weights, in_dim=2, units="data")


@pytest.mark.slow
def test_members_keep_the_scale_they_drew():
    method = bn.DeepEnsemble(members=3, steps=30, hold_scales=True)
    held = bn.fit(finite(4), X, Y, likelihood=NOISE, inference=method, warn=False)
    further = bn.fit(finite(4), X, Y, likelihood=NOISE, inference=method, init=held, warn=False)
    np.testing.assert_array_equal(further.latents[..., -1], held.latents[..., -1])
    assert np.abs(further.latents[..., :-1] - held.latents[..., :-1]).max() > 0.01
    with pytest.raises(bn.UnsupportedError, match="ScaledLastLayer"):
        bn.fit(KERNEL.finite(4, 2), X, Y, inference=method)
    with pytest.raises(bn.InputError, match="hold_scales"):
        bn.DeepEnsemble(hold_scales=1)


@pytest.mark.slow
def test_as_width_grows_finite_ensembles_tend_to_the_mixture():
    """Shares of members below quantiles of the limit, within their binomial standard error."""
    post = fit(bn.ScaleMixture(KERNEL, LAW, noise="outside"))
    limit = post.predict(NEW).sample(0, 200_000, joint=False, noise=False)[:, :, 0]
    levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
    quantiles = np.quantile(limit, levels, axis=0)
    members = 300
    method = bn.DeepEnsemble(
        members=members, steps=1500, learning_rate=0.03, hold_scales=True, noisy_targets=False
    )
    error = np.sqrt(levels * (1 - levels) / members)[:, None]
    far = {}
    for width in (4, 32, 256):
        ensemble = bn.fit(finite(width), X, Y, likelihood=NOISE, inference=method, warn=False)
        values = ensemble.predict(NEW).values[:, :, 0]
        far[width] = np.abs((values[None] <= quantiles[:, None]).mean(1) - levels[:, None]) / error
    # 20 shares: the largest of as many normal deviations is below 3.5 in 99 % of cases.
    assert far[256].max() < 3.5
    assert np.mean(far[4] ** 2) > 2 * np.mean(far[256] ** 2)
    assert far[4].max() > 3.5
