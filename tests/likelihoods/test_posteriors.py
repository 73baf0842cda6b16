"""HMC under each likelihood against quadrature over the one or two latents of a small model."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from scipy import stats
from scipy.special import expit, logsumexp, softmax

import bayesnet as bn

LIMIT = 5.0
METHOD = bn.HMC(chains=4, warmup=200, draws=400)
X = np.array([-1.5, -1.0, -0.4, 0.2, 0.5, 1.1, 1.8])
NEW = np.array([-0.8, 0.7, 2.5])
GRID = np.linspace(-7, 7, 701)


def slope(outputs):
    """f(x) = w x, with one weight for each of `outputs` outputs."""

    def init(key):
        return {"w": jnp.zeros(outputs)}

    def apply(params, x):
        return x * params["w"]

    return bn.NetworkPrior((init, apply), in_dim=1, out_dim=outputs, units="data")


def rule_of(log_likelihood, dims):
    """The posterior on a grid of `dims` standard normal latents: nodes (g, dims), weights (g,)."""
    axes = np.meshgrid(*[GRID] * dims, indexing="ij")
    nodes = np.stack([a.ravel() for a in axes], axis=-1)
    log_density = log_likelihood(nodes) - 0.5 * (nodes**2).sum(-1)
    return nodes, np.exp(log_density - logsumexp(log_density))


def agree(post, draws, truth):
    """Draws (s, ...) of all chains against an expectation, in their own standard errors."""
    c, s, _ = post.latents.shape
    scores = oracles.z_scores(draws.reshape(c, s, *draws.shape[1:]), np.asarray(truth))
    assert np.abs(scores).max() < LIMIT, scores


def fit(prior, y, likelihood, **table):
    return bn.fit(
        prior, X[:, None], y, likelihood=likelihood, inference=METHOD, seed=1, warn=False, **table
    )


def check(post, law, nodes, weights, y_new):
    """Latents and predictive densities. `law(nodes, x)` is a SciPy law with shape (g, n)."""
    z = post.latents.reshape(-1, post.latents.shape[-1])
    agree(post, z, weights @ nodes)
    agree(post, z**2, weights @ nodes**2)
    frozen = law(nodes, NEW)
    pdf = frozen.pmf if hasattr(frozen, "pmf") else frozen.pdf
    pred = post.predict(NEW[:, None])
    agree(post, np.exp(pred.components.log_prob(y_new[:, None]))[..., 0], weights @ pdf(y_new))
    # The mixture is the mean over draws, and nothing else.
    mean = np.exp(pred.components.log_prob(y_new[:, None])).mean(0)
    np.testing.assert_allclose(np.exp(pred.log_prob(y_new)), mean, rtol=1e-10)
    agree(post, pred.components.cdf(y_new[:, None])[..., 0], weights @ frozen.cdf(y_new))


Y = 0.8 * X + np.array([0.1, -0.2, 0.05, 0.3, -0.1, 2.5, -0.1])
LEVEL = bn.LogNormal(-0.7, 0.6)


@pytest.mark.slow
def test_student_t_with_a_learned_scale():
    def law(z, x):
        return stats.t(3.0, z[:, :1] * x, np.exp(-0.7 + 0.6 * z[:, 1:]))

    nodes, weights = rule_of(lambda z: law(z, X).logpdf(Y).sum(-1), 2)
    post = fit(slope(1), Y, bn.StudentTLikelihood(3.0, LEVEL))
    check(post, law, nodes, weights, np.array([-0.5, 0.9, 0.0]))


@pytest.mark.slow
def test_student_t_with_learned_degrees_of_freedom():
    def law(z, x):
        return stats.t(2 + 4 * np.exp(z[:, 1:]), z[:, :1] * x, 0.3)

    nodes, weights = rule_of(lambda z: law(z, X).logpdf(Y).sum(-1), 2)
    post = fit(slope(1), Y, bn.StudentTLikelihood(None, 0.3))
    check(post, law, nodes, weights, np.array([-0.5, 0.9, 0.0]))


@pytest.mark.slow
def test_laplace_with_a_learned_scale():
    def law(z, x):
        return stats.laplace(z[:, :1] * x, np.exp(-0.7 + 0.6 * z[:, 1:]))

    nodes, weights = rule_of(lambda z: law(z, X).logpdf(Y).sum(-1), 2)
    check(fit(slope(1), Y, bn.LaplaceLikelihood(LEVEL)), law, nodes, weights, np.zeros(3))


@pytest.mark.slow
def test_heteroscedastic():
    def law(z, x):
        return stats.norm(z[:, :1] * x, np.exp(-0.7 + 0.6 * z[:, 1:] * x))

    nodes, weights = rule_of(lambda z: law(z, X).logpdf(Y).sum(-1), 2)
    post = fit(slope(2), Y, bn.HeteroscedasticLikelihood(LEVEL))
    check(post, law, nodes, weights, np.array([-0.5, 0.9, 1.0]))


@pytest.mark.slow
def test_poisson_with_weights():
    counts, weight = np.array([0, 0, 1, 1, 0, 4, 6]), np.array([1.0, 0.5, 0, 2, 1, 1, 0.3])

    def law(z, x):
        return stats.poisson(1.5 * np.exp(z * x))

    nodes, weights = rule_of(lambda z: law(z, X).logpmf(counts) @ weight, 1)
    post = fit(slope(1), counts, bn.PoissonLikelihood(1.5), sample_weight=weight)
    check(post, law, nodes, weights, np.array([1.0, 2.0, 9.0]))


def test_bernoulli():
    labels = np.array(["no", "no", "yes", "no", "yes", "yes", "yes"])

    def p_yes(z, x):
        return expit(z * x)

    def log_likelihood(z):
        return np.log(np.where(labels == "yes", p_yes(z, X), 1 - p_yes(z, X))).sum(-1)

    nodes, weights = rule_of(log_likelihood, 1)
    post = fit(slope(1), labels, bn.BernoulliLikelihood())
    pred = post.predict(NEW[:, None])
    agree(post, post.split()[0], weights @ nodes)
    assert pred.classes.tolist() == ["no", "yes"]
    agree(post, pred.components.probabilities[..., 1], weights @ p_yes(nodes, NEW))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_categorical(noise):
    """Three logits, of which the first is 0: two weights are enough for a grid."""
    labels = np.array([0, 0, 1, 1, 2, 2, 2])

    def init(key):
        return {"w": jnp.zeros(2)}

    def apply(params, x):
        return jnp.concatenate([jnp.zeros_like(x), x * params["w"] + jnp.array([0.5, 0.0])], 1)

    def probabilities(z, x):
        logits = z[:, None, :] * x[:, None] + np.array([0.5, 0.0])
        p = softmax(np.concatenate([np.zeros((*logits.shape[:2], 1)), logits], -1), axis=-1)
        return (1 - noise) * p + noise / 3

    def log_likelihood(z):
        return np.log(probabilities(z, X)[:, np.arange(7), labels]).sum(-1)

    nodes, weights = rule_of(log_likelihood, 2)
    prior = bn.NetworkPrior((init, apply), in_dim=1, out_dim=3, units="data")
    post = fit(prior, labels, bn.CategoricalLikelihood(label_noise=noise))
    pred = post.predict(NEW[:, None])
    agree(post, post.split()[0], weights @ nodes)
    exact = np.tensordot(weights, probabilities(nodes, NEW), 1)
    agree(post, pred.components.probabilities[..., :2], exact[:, :2])


@pytest.mark.slow
def test_a_learned_share_of_wrong_labels():
    labels = np.array([0, 0, 1, 0, 1, 0, 1])
    law = bn.LogitNormal(-1.5, 1.0)

    def init(key):
        return {"w": jnp.zeros(1)}

    def apply(params, x):
        return jnp.concatenate([jnp.zeros_like(x), 3 * x * params["w"]], 1)

    def p_one(z, x):
        share = expit(-1.5 + z[:, 1:])
        return (1 - share) * expit(3 * z[:, :1] * x) + share / 2

    nodes, weights = rule_of(
        lambda z: np.log(np.where(labels == 1, p_one(z, X), 1 - p_one(z, X))).sum(-1), 2
    )
    prior = bn.NetworkPrior((init, apply), in_dim=1, out_dim=2, units="data")
    post = fit(prior, labels, bn.CategoricalLikelihood(label_noise=law))
    z = post.latents.reshape(-1, 2)
    agree(post, z, weights @ nodes)
    agree(post, z**2, weights @ nodes**2)
    pred = post.predict(NEW[:, None])
    agree(post, pred.components.probabilities[..., 1], weights @ p_one(nodes, NEW))


def test_missing_targets_and_weights_of_two_outputs():
    """Two conjugate regressions, each on the rows where its target was observed."""
    y = np.column_stack([0.8 * X, -0.5 * X + 0.3])
    y[[0, 3], 0] = np.nan
    y[5, 1] = np.nan
    weight = np.array([1.0, 2, 1, 1, 0.5, 1, 3])
    post = fit(slope(2), y, bn.GaussianLikelihood(0.4), missing="mask", sample_weight=weight)
    z = post.latents.reshape(-1, 2)
    for j in range(2):
        seen = ~np.isnan(y[:, j])
        exact = oracles.LinearRegression.fit(X[seen, None], y[seen, j], 0.16 / weight[seen])
        agree(post, z[:, j], exact.mean[0])
        agree(post, (z[:, j] - exact.mean[0]) ** 2, exact.cov[0, 0])
