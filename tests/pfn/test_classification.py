"""Classifiers: what they are trained on, what they answer, what they refuse."""

import copy
import csv
import pickle
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

import bayesnet as bn
from bayesnet.cli.app import app
from bayesnet.pfn import ClassPFN, CorrelatedInputs, Labels, RandomNetworks
from bayesnet.pfn.class_certificate import calibration_error
from bayesnet.pfn.class_labels import draw_bins, num_classes
from bayesnet.pfn.class_tasks import (
    ClassBatch,
    ClassTasks,
    _binned_process,
    _of_functions,
    _standardised,
)
from bayesnet.pfn.class_training import ClassObjective, padded
from bayesnet.pfn.class_views import make_views
from bayesnet.pfn.classifier import class_card
from bayesnet.pfn.configurations import read_configuration
from bayesnet.pfn.inputs import as_input_law
from bayesnet.pfn.loop import run_loop
from bayesnet.pfn.settings import Training

SMALL = {
    "batch": 8, "buckets": (8, 24), "dims": (1,), "max_dim": 3, "width": 16, "depth": 2,
    "heads": 2, "hidden": 16, "queries": 8, "warmup": 2,
}  # fmt: skip
PLAIN = Labels(3, logits=0.0, several=0.0, flipped=0.0)


class Nothing:
    """Functions that are 0: labels are noise, and their law is Dirichlet-multinomial."""

    latent_size = 1
    units = "scaled"

    def apply(self, z, x):
        return 0.0 * x[:, :1] * z[0]

    def sample(self, key, x, num_samples):
        return jnp.zeros((num_samples, len(x), 1))

    def encode(self, params):
        raise NotImplementedError

    def __repr__(self):
        return "Nothing()"


def tasks(labels=PLAIN, prior=None):
    return ClassTasks(prior or Nothing(), None, as_input_law(None), (1,), 24, 8, labels)


@pytest.fixture(scope="module")
def pfn():
    """With random weights, and a head that tells classes apart."""
    training = Training(steps=6, **SMALL)
    network = ClassObjective(tasks(), training).start().network
    head = jax.random.normal(jax.random.key(1), network.head.shape)
    network = eqx.tree_at(lambda n: n.head, network, head)
    return ClassPFN(network, class_card(tasks(), training, "small"))


def table(n=12, d=2, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(classes, size=n - classes)])
    return 5 + 2 * rng.normal(size=(n, d)), labels, 5 + 2 * rng.normal(size=(7, d))


# What it is trained on ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_class_of_a_table_owns_a_bin_and_no_other_does():
    labels = Labels(5, several=0.5)
    values = jax.random.normal(jax.random.key(0), (200, 400))
    count = jax.jit(num_classes, static_argnums=(0, 2))(labels, jax.random.key(1), 200)
    bins = jax.jit(draw_bins, static_argnums=0)(labels, jax.random.key(2), values, count)
    owned = np.asarray(bins.owner).argmax(axis=-1)
    real = 1 + np.isfinite(bins.edges).sum(axis=1)
    assert set(np.asarray(count)) == {2, 3, 4, 5}
    assert (real > np.asarray(count)).any()
    for classes, size, k in zip(owned, real, np.asarray(count), strict=True):
        assert set(classes[:size]) == set(range(k))
    # Class names say nothing: the first of two is the lower one half of the time.
    two = (np.asarray(count) == 2) & (real == 2)
    assert 0.25 < (owned[two, 0] == 0).mean() < 0.75


@pytest.mark.slow
def test_targets_of_a_process_are_those_of_monte_carlo():
    k_y, key = jax.random.split(jax.random.key(3))
    y = jax.random.normal(k_y, (6, 50))
    mean, std = jnp.linspace(-1, 1, 4) * jnp.ones((6, 1)), jnp.full((6, 4), 0.4)
    noise = jnp.full(6, 0.3)
    codes, classes, target, entropy = _binned_process(PLAIN, key, y, mean, std, noise)
    k_count, k_bins, _ = jax.random.split(key, 3)
    bins = draw_bins(PLAIN, k_bins, y, num_classes(PLAIN, k_count, 6))
    assert np.array_equal(codes, bins.codes(y))
    f = mean[..., None] + 0.4 * jax.random.normal(jax.random.key(4), (6, 4, 4000))
    drawn = f + 0.3 * jax.random.normal(jax.random.key(5), f.shape)
    found = jax.nn.one_hot(bins.codes(drawn.reshape(6, -1)), 3).reshape(6, 4, 4000, 3)
    np.testing.assert_allclose(target, found.mean(axis=2), atol=4 * 0.5 / 4000**0.5)
    np.testing.assert_allclose(target.sum(axis=-1), 1, atol=1e-5)
    assert not np.asarray(target)[np.broadcast_to(~np.asarray(classes)[:, None], (6, 4, 3))].any()
    # The expected entropy given f, with the laws of every draw of f by scipy.
    edges = np.asarray(bins.edges)[:, None, None]
    below = norm.cdf((edges - np.asarray(f)[..., None]) / 0.3)
    mass = np.diff(below, axis=-1, prepend=0.0, append=1.0)
    p = np.einsum("bqse,bek->bqsk", mass, np.asarray(bins.owner))
    inside = -(p * np.log(np.maximum(p, 1e-12))).sum(axis=-1).mean(axis=-1)
    np.testing.assert_allclose(entropy, inside, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [PLAIN, Labels(3, logits=1.0, flipped=0.4)])
def test_targets_of_known_functions_are_the_shares_of_their_labels(labels):
    """The rows of a table all have the value of its one query."""
    n = 6000
    value = jax.random.normal(jax.random.key(0), (10, 3, 1))
    f = jnp.broadcast_to(value, (10, 3, n + 1))
    noise = jnp.linspace(0.1, 1.0, 10)
    codes, classes, target, entropy = _of_functions(labels, n, jax.random.key(1), f, noise)
    found = jax.nn.one_hot(codes, 3).mean(axis=1)
    np.testing.assert_allclose(target[:, 0], found, atol=4 * 0.5 / n**0.5)
    p = np.maximum(np.asarray(target)[:, 0], 1e-12)
    np.testing.assert_allclose(entropy[:, 0], -(p * np.log(p)).sum(axis=1), atol=1e-4)
    assert found[np.asarray(classes)].max() < 1


def test_inputs_are_standardised_by_the_rows_of_the_table():
    x = 3 + 2 * jax.random.normal(jax.random.key(0), (2, 9, 3))
    mask = jnp.arange(9) < jnp.array([[5], [9]])
    queries = jnp.full((2, 1, 3), 100.0)
    scaled, far = _standardised(x, queries, mask)
    rows = np.asarray(scaled)[0, :5]
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=0), 1, atol=1e-4)
    assert not np.asarray(scaled)[0, 5:].any()
    assert np.asarray(far).max() == 8


def test_tables_of_many_columns_are_trained_on_as_users_tables_are_seen():
    rng = np.random.default_rng(0)
    rows, width, most = 20, 15, 10
    x = rng.normal(size=(4, rows, width)) @ rng.normal(size=(width, width))
    new = rng.normal(size=(4, 3, width))
    mask = jnp.arange(rows) < jnp.array([[20], [12], [6], [0]])
    none = jnp.zeros((4, 3))
    seen, queries = _standardised(jnp.asarray(x), jnp.asarray(new), mask)
    given = ClassBatch(
        seen, jnp.zeros((4, rows), int), mask, queries, jnp.ones(width), jnp.ones((4, 3), bool), none[..., None], none,
    )  # fmt: skip
    batch = padded(given, most)
    assert batch.x.shape == (4, rows, most)
    assert batch.queries.shape == (4, 3, most)
    np.testing.assert_array_equal(batch.used, 1)
    for i, n in ((0, 20), (1, 12)):
        (view,) = make_views(x[i, :n], 2, most, 1, "project", 0)
        for seen, expected in (
            (batch.x[i, :n], view.inputs(x[i, :n])),
            (batch.queries[i], view.inputs(new[i])),
        ):
            # Up to signs, which the components of either may have.
            signs = np.sign(np.sum(np.asarray(batch.x[i, :n]) * view.inputs(x[i, :n]), axis=0))
            np.testing.assert_allclose(seen * signs, expected, atol=2e-3)
    # Six rows have five directions, and none is taken for another.
    assert not np.asarray(jnp.abs(batch.x[2]).max(axis=0) > 1e-4)[5:].any()
    assert np.isfinite(batch.queries).all()
    assert not np.asarray(batch.x)[3].any()


def test_only_classifiers_are_trained_on_projections(tmp_path):
    with pytest.raises(bn.InputError, match="between 1 and max_dim=3"):
        Training(dims=(1, 5), max_dim=3)
    with pytest.raises(bn.InputError, match="wider"):
        Training(wider="pca")
    with pytest.raises(bn.InputError, match="Only classifiers"):
        bn.PFN.train(bn.GaussianProcess("rbf", lengthscale=1.0), wider="project")
    (tmp_path / "run.toml").write_text("[training]\nwider = 'project'\n[[prior]]\n")
    with pytest.raises(bn.InputError, match="Only classifiers"):
        read_configuration(tmp_path / "run.toml")


@pytest.mark.slow
def test_a_classifier_is_trained_on_more_columns_than_it_accepts():
    pfn = ClassPFN.train(
        lambda d: RandomNetworks(d, depth=1, width=4),
        steps=2,
        wider="project",
        **(SMALL | {"dims": (2, 5)}),
    )
    assert pfn.max_dim == 3
    x, y, new = table(d=5)
    assert pfn.fit(x, y, wider="project").predict(new).mean.shape == (7, 3)


class Plain:
    """Standard normal columns, the first of which every other task ignores."""

    def draw(self, key, size, rows, queries, d):
        x = jax.random.normal(key, (size, rows, d))
        ignored = (jnp.arange(size)[:, None] % 2 == 0) & (jnp.arange(d) == 0)
        return x, x * ~ignored[:, None]


@pytest.mark.slow
def test_correlated_inputs_have_unit_variance_and_leave_unused_columns_out():
    law = CorrelatedInputs(Plain(), correlated=1.0, rounded=0.0)
    x, seen = law.draw(jax.random.key(0), 200, 60, 1, 4)
    assert 0.8 < float(jnp.mean(x[:, :59] ** 2)) < 1.25
    correlations = [np.corrcoef(np.asarray(t).T)[0, 1] for t in x[:, :59]]
    assert np.quantile(np.abs(correlations), 0.9) > 0.5
    assert not np.asarray(seen)[::2, :, 0].any()
    assert np.array_equal(seen[1::2], x[1::2])
    few = CorrelatedInputs(Plain(), rounded=1.0).draw(jax.random.key(1), 5, 60, 1, 2)[0]
    assert max(len(np.unique(np.asarray(few)[i, :, j])) for i in range(5) for j in range(2)) < 30
    with pytest.raises(bn.InputError, match="probabilities"):
        CorrelatedInputs(rounded=2.0)


@pytest.mark.slow
def test_random_networks_are_linear_at_depth_0_and_finite_far_out():
    prior = RandomNetworks(2, depth=2, width=4, sparsity=0.0)
    z = jax.random.normal(jax.random.key(0), (prior.latent_size,))
    x = jax.random.normal(jax.random.key(1), (5, 2))
    apply = jax.jit(prior.apply)
    straight = apply(z.at[0].set(-8.0), x)[:, 0]
    # Its weights are the last but for the latents that say whether they are there.
    weights = z[-6:-3]
    np.testing.assert_allclose(
        straight, x @ weights[:2] / np.sqrt(2) + 0.7 * weights[2], rtol=1e-5, atol=1e-6
    )
    for extreme in (-8.0, 8.0):
        assert np.isfinite(apply(jnp.full(prior.latent_size, extreme), x)).all()
    bent = apply(z.at[0].set(8.0), x)[:, 0]
    assert np.abs(bent - straight).max() > 1e-3
    draws = prior.sample(jax.random.key(2), x, 300)
    assert draws.shape == (300, 5, 1)
    assert 0.3 < float(jnp.mean(draws**2)) < 3
    gradient = jax.jit(jax.grad(lambda a: prior.apply(a, x).sum()))(z)
    assert np.isfinite(gradient).all()
    for bad in ({"width": 1}, {"sparsity": 1.0}, {"gain": 0.0}):
        with pytest.raises(bn.InputError):
            RandomNetworks(2, **bad)
    with pytest.raises(bn.InputError, match="must be"):
        prior.sample(jax.random.key(2), x[:, :1], 3)


# What it answers ---------------------------------------------------------------------------------


def test_probabilities_are_of_the_classes_of_the_table(pfn):
    x, y, new = table(classes=2)
    names = np.array(["no", "yes"])[y]
    prediction = pfn.fit(x, names).predict(new)
    assert prediction.labels == ("no", "yes")
    assert prediction.mean.shape == (7, 2)
    np.testing.assert_allclose(prediction.mean.sum(axis=1), 1)
    total = prediction.aleatoric + prediction.epistemic
    np.testing.assert_allclose(total, prediction.entropy)
    assert (prediction.aleatoric >= 0).all()
    assert (prediction.epistemic >= 0).all()
    assert set(prediction.predicted) <= {"no", "yes"}
    three = pfn.fit(x, names, classes=("no", "perhaps", "yes")).predict(new)
    assert three.mean.shape == (7, 3)
    drawn = prediction.sample(0, 4000)
    shares = (drawn == "yes").mean(axis=0)
    np.testing.assert_allclose(shares, prediction.mean[:, 1], atol=0.04)
    for wrong in ({"joint": True}, {"noise": False}):
        with pytest.raises(bn.UnsupportedError, match="row by row"):
            prediction.sample(0, 2, **wrong)


def test_the_order_of_rows_and_units_of_columns_do_not_matter(pfn):
    x, y, new = table()
    expected = pfn.fit(x, y, ensemble=3).predict(new).mean
    order = np.random.default_rng(1).permutation(len(y))
    np.testing.assert_allclose(
        pfn.fit(x[order], y[order], ensemble=3).predict(new).mean, expected, atol=1e-5
    )
    found = pfn.fit(1000 * x - 7, y, ensemble=3).predict(1000 * new - 7).mean
    np.testing.assert_allclose(found, expected, atol=1e-4)
    # Rows of the answer do not depend on each other.
    one = pfn.fit(x, y, ensemble=3).predict(new[3:4]).mean
    np.testing.assert_array_equal(one[0], expected[3])


def test_all_orders_of_the_classes_treat_their_names_alike(pfn):
    x, y, new = table()
    other = np.array([2, 0, 1])
    plain, renamed = (pfn.fit(x, c).predict(new).mean for c in (y, other[y]))
    assert np.abs(renamed[:, other] - plain).max() > 1e-3
    plain, renamed = (pfn.fit(x, c, ensemble=6).predict(new).mean for c in (y, other[y]))
    np.testing.assert_allclose(renamed[:, other], plain, atol=1e-5)


def test_many_tables_in_one_program_are_as_one_by_one(pfn):
    x, y, new = (np.stack(a) for a in zip(*[table(seed=s) for s in range(3)], strict=True))
    many = pfn.predict_many(x, y, new, ensemble=2)
    for i, prediction in enumerate(many):
        one = pfn.fit(x[i], y[i], ensemble=2).predict(new[i])
        np.testing.assert_allclose(prediction.mean, one.mean, atol=1e-5)
        np.testing.assert_allclose(prediction.aleatoric, one.aleatoric, atol=1e-5)
    with pytest.raises(bn.InputError, match="must be"):
        pfn.predict_many(x[0], y[0], new[0])
    with pytest.raises(bn.InputError, match="agree"):
        pfn.predict_many(x, y, new[:, :, :1])


def test_views_of_components_keep_their_order():
    x, _, new = table(n=30, d=6)
    first, *others = make_views(x, 2, 4, 8, "project", 0)
    signs = []
    for view in others:
        if view.squash is None:
            ratio = view.inputs(new) / first.inputs(new)
            np.testing.assert_allclose(np.abs(ratio), 1)
            signs.append(np.sign(ratio[0]))
    # A view of each order of the classes, then again with other signs.
    assert len(signs) == 3
    np.testing.assert_array_equal(signs[0], 1)
    assert (signs[1] != 1).any()


def test_more_rows_and_columns_are_taken_where_that_is_asked(pfn):
    x, y, new = table(n=60, d=5)
    y[:] = np.where(np.arange(60) == 7, 2, y % 2)  # a class of one row
    for options in ({"wider": "project"}, {"wider": "subsample", "ensemble": 12}):
        posterior = pfn.fit(x, y, longer="subsample", **options)
        assert len(posterior.x) == 24
        assert 2 in posterior.codes
        assert posterior.predict(new).mean.shape == (7, 3)
    with pytest.raises(bn.InputError, match="at most 24"):
        pfn.fit(x[:, :2], y)
    with pytest.raises(bn.InputError, match="at most 3"):
        pfn.fit(x[:20], y[:20])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, np.zeros(len(y), int)), "one class only"),
        (lambda x, y: (x, np.arange(len(y))), "12 classes"),
        (lambda x, y: (x, y + 0.5), "fraction"),
        (lambda x, y: (np.where(x > 5, np.nan, x), y), "NaN"),
        (lambda x, y: (x[:-1], y), "one label per row"),
        (lambda x, y: (x[:0], y[:0]), "no data"),
        (lambda x, y: (x[:1], y[:1]), "one class only"),
        (lambda x, y: (x, np.where(y == 0, None, y)), "missing label"),
        (lambda x, y: (np.full(x.shape, "a"), y), "numbers"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(pfn, change, message):
    x, y, _ = table()
    with pytest.raises(bn.InputError, match=message):
        pfn.fit(*change(x, y))


def test_options_with_mistakes_are_refused(pfn):
    x, y, new = table()
    with pytest.raises(bn.InputError, match="ensemble"):
        pfn.fit(x, y, ensemble=0)
    with pytest.raises(bn.InputError, match="wider"):
        pfn.fit(x, y, wider="pca")
    with pytest.raises(bn.InputError, match="not among the classes"):
        pfn.fit(x, y, classes=(0, 1))
    with pytest.raises(bn.InputError, match="features"):
        pfn.fit(x, y).predict(new[:, :1])
    with pytest.raises(bn.InputError, match="max_classes"):
        Labels(1)
    with pytest.raises(bn.InputError, match="numbers, 0 or more"):
        Labels(3, class_weights=(1.0,))
    with pytest.raises(bn.InputError, match="probability"):
        Labels(3, flipped=2.0)
    with pytest.raises(bn.UnsupportedError, match="network priors"):
        ClassPFN.train(bn.ScaleMixture(bn.GaussianProcess("rbf"), bn.InverseGamma(2.0, 1.0)))


def test_constant_columns_and_ties_are_taken(pfn):
    x, y, new = table()
    x[:, 0] = 3.0
    x[6:] = x[:6]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ensemble in (1, 8):
            assert np.isfinite(pfn.fit(x, y, ensemble=ensemble).predict(new).mean).all()


def test_it_is_a_method_of_fit(pfn):
    x, y, new = table()
    expected = pfn.fit(x, y).predict(new).mean
    for likelihood in (None, "categorical", bn.CategoricalLikelihood((0, 1, 2))):
        found = bn.fit(None, x, y, likelihood=likelihood, inference=pfn).predict(new)
        np.testing.assert_array_equal(found.mean, expected)
    law = bn.CategoricalLikelihood(label_noise=0.1)
    with pytest.raises(bn.UnsupportedError, match="noise"):
        bn.fit(None, x, y, likelihood=law, inference=pfn)
    with pytest.raises(bn.UnsupportedError, match="prior"):
        bn.fit(bn.GaussianProcess("rbf"), x, y, inference=pfn)


def test_a_table_unlike_the_prior_is_told(pfn):
    x, y, _ = table()
    posterior = pfn.fit(x, y)
    assert np.isfinite(posterior.surprise)
    assert np.isnan(pfn.fit(x[:4], y[:4]).surprise)
    strict = ClassPFN(pfn.network, pfn.card | {"surprise_limit": posterior.surprise - 1})
    with pytest.warns(UserWarning, match="unlike"):
        strict.fit(x, y)


def test_calibration_error_is_that_of_two_groups():
    confidence = np.repeat([0.6, 0.9], 30)
    right = np.repeat([0.5, 0.7], 30)
    assert calibration_error(confidence, right, bins=2) == pytest.approx(0.15)
    assert calibration_error(confidence, confidence) == pytest.approx(0.0)


# How it is kept ----------------------------------------------------------------------------------


def test_weights_and_posteriors_are_saved_without_a_pickle(pfn, tmp_path):
    x, y, new = table()
    posterior = pfn.fit(x, np.array(["a", "b", "c"])[y], ensemble=2)
    expected = posterior.predict(new).mean
    posterior.save(tmp_path / "p")
    copies = (
        bn.load(tmp_path / "p"),
        copy.deepcopy(posterior),
        pickle.loads(pickle.dumps(posterior)),
    )
    for other in copies:
        np.testing.assert_array_equal(other.predict(new).mean, expected)
    path = tmp_path / "w.safetensors"
    pfn.save(path)
    back = ClassPFN.load(path)
    assert back.card == pfn.card
    assert back.network.norm.dtype == np.float32
    np.testing.assert_allclose(back.fit(x, y, ensemble=2).predict(new).mean, expected, atol=0.02)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(bn.FileFormatError, match="altered"):
        ClassPFN.load(path)
    bn.posterior.saving.save({"a": 1}, tmp_path / "other.safetensors")
    with pytest.raises(bn.FileFormatError, match="not a ClassPFN"):
        ClassPFN.load(tmp_path / "other.safetensors")
    with pytest.raises(bn.InputError, match="not for classes"):
        ClassPFN.from_pretrained("gp")


def test_the_shipped_configuration_is_read():
    configuration = read_configuration("classifier")
    assert configuration.training.max_dim == 10
    assert configuration.tasks.max_rows == 100
    assert configuration.tasks.labels.max_classes >= 3
    assert isinstance(configuration.tasks.functions.parts(3)[0], RandomNetworks)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[labels]\nmax_classes = 3\n[[prior]]", "decoder"),
        ("decoder = 'classes'\n[labels]\nclasses = 3\n[[prior]]", "classes"),
        ("decoder = 'classes'\n[inputs]\nmixed = 1.0\n[[prior]]", "mixed"),
        ("decoder = 'classes'\n[[prior]]\nkind = 'architectures'\nunits = 3", "units"),
    ],
)
def test_configurations_with_mistakes_are_refused(tmp_path, text, message):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(bn.InputError, match=message):
        read_configuration(path)


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    objective = ClassObjective(tasks(prior=RandomNetworks(1)), Training(steps=6, **SMALL))
    whole = run_loop(objective)
    run_loop(objective, folder=tmp_path, stop_at=3)
    resumed = run_loop(objective, folder=tmp_path)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        assert np.array_equal(a, b)
    other = ClassObjective(tasks(Labels(3)), Training(steps=6, **SMALL))
    with pytest.raises(bn.InputError, match="another configuration"):
        run_loop(other, folder=tmp_path)


@pytest.mark.slow
def test_training_comes_to_the_conjugate_posterior():
    """Labels that inputs tell nothing of: their shares are Dirichlet, so that a class that n_k of n
    rows have is predicted with probability (n_k + a) / (n + K a)."""
    labels = Labels(2, balance=2.0, logits=0.0, several=0.0, flipped=0.0)
    pfn = ClassPFN.train(
        Nothing(),
        labels=labels,
        steps=600,
        **(SMALL | {"batch": 32, "max_dim": 1, "warmup": 50, "learning_rate": 3e-3}),
    )
    rng = np.random.default_rng(0)
    for n, ones in ((2, 1), (8, 1), (20, 5), (20, 16)):
        y = rng.permutation(np.arange(n) < ones)
        p = pfn.fit(rng.normal(size=(n, 1)), y).predict(rng.normal(size=(5, 1))).mean[:, 1]
        np.testing.assert_allclose(p, (ones + 2) / (n + 4), atol=0.06)


@pytest.mark.slow
def test_train_and_predict_on_the_command_line(tmp_path):
    run = "\n".join(f"{k} = {list(v) if isinstance(v, tuple) else v}" for k, v in SMALL.items())
    text = f"decoder = 'classes'\n[training]\nsteps = 2\n{run}\n"
    text += "[labels]\nmax_classes = 3\n[[prior]]\nkind = 'architectures'\nwidth = 8\n"
    (tmp_path / "run.toml").write_text(text)
    weights = tmp_path / "w.safetensors"
    done = CliRunner().invoke(
        app, ["pfn", "train", str(tmp_path / "run.toml"), "--out", str(weights)]
    )
    assert done.exit_code == 0, done.stderr
    lines = ["kind,a", *(f"{'no' if i % 3 else 'yes'},{i / 7}" for i in range(12))]
    (tmp_path / "known.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "new.csv").write_text("a\n0.1\n0.5\n")
    files = [str(tmp_path / name) for name in ("known.csv", "new.csv")]
    done = CliRunner().invoke(
        app, ["pfn", "predict", *files, "--target", "kind", "--weights", str(weights)]
    )
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [set(row) for row in rows] == [
        {"predicted", "p_no", "p_yes", "epistemic", "aleatoric"}
    ] * 2
    assert all(abs(float(r["p_no"]) + float(r["p_yes"]) - 1) < 1e-4 for r in rows)
