"""Saved files: identical predictions, and nothing but our own whole files is read."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

import bayesnet as bn
from bayesnet.posterior import saving

X = np.array([[5.0, -1.0], [3.0, -1.2], [8.0, -0.7]])


@pytest.fixture
def saved(small_posterior, tmp_path):
    path = tmp_path / "post.safetensors"
    small_posterior.save(path)
    return path


def test_a_loaded_posterior_is_the_same(small_posterior, saved):
    again = bn.load(saved)
    expected, pred = small_posterior.predict(X), again.predict(X)
    np.testing.assert_array_equal(pred.values, expected.values)
    np.testing.assert_array_equal(pred.std, expected.std)
    np.testing.assert_array_equal(pred.log_prob(expected.mean), expected.log_prob(expected.mean))
    assert again.method == small_posterior.method
    assert again.likelihood == small_posterior.likelihood
    assert str(again.diagnostics()) == str(small_posterior.diagnostics())
    assert again.states == ()


def test_a_tuple_of_arrays_is_loaded_as_one(tmp_path):
    kept = (np.arange(3.0), {"a": np.ones((2, 2), np.float16)})
    saving.save(kept, tmp_path / "pair.safetensors")
    first, second = saving.load(tmp_path / "pair.safetensors")
    np.testing.assert_array_equal(first, kept[0])
    np.testing.assert_array_equal(second["a"], kept[1]["a"])
    assert second["a"].dtype == np.float16


@pytest.mark.slow
def test_row_variances_known_noise_and_laws_survive(tmp_path):
    x, y = np.arange(6.0)[:, None], np.arange(6.0)
    prior = bn.NetworkPrior(bn.MLP((3,)))
    method = bn.HMC(chains=1, warmup=10, draws=10)
    for i, noise in enumerate((0.5, bn.LogNormal(0.0, 0.3))):
        post = bn.fit(
            prior,
            x,
            y,
            y_var=np.full(6, 0.2),
            likelihood=bn.GaussianLikelihood(noise),
            inference=method,
            warn=False,
        )
        post.save(tmp_path / str(i))
        again = bn.load(tmp_path / str(i))
        np.testing.assert_array_equal(again.predict(x).std, post.predict(x).std)


def test_a_prior_can_be_saved(tmp_path):
    prior = bn.NetworkPrior(bn.MLP((4,), "relu", "standard"), in_dim=2, units="data")
    saving.save(prior, tmp_path / "prior")
    again = bn.load(tmp_path / "prior")
    assert (again.network, again.units) == (prior.network, "data")
    np.testing.assert_array_equal(again.sample(0, X, 2), prior.sample(0, X, 2))


def test_a_file_is_tensors_and_json_and_nothing_else(saved):
    raw = saved.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    metadata = header.pop("__metadata__")
    json.loads(metadata["description"])
    covered = sorted(tuple(entry["data_offsets"]) for entry in header.values())
    assert covered[0][0] == 0
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    assert 8 + size + covered[-1][1] == len(raw)  # no byte that is not accounted for


def test_loading_never_unpickles(saved, monkeypatch):
    import pickle

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    assert bn.load(saved).num_draws == 100


def test_saving_replaces_a_file_whole_or_not_at_all(small_posterior, saved, monkeypatch):
    before = saved.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        small_posterior.save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_others_may_read_a_file_as_any_other(small_posterior, tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    small_posterior.save(tmp_path / "saved.bayesnet")
    assert (tmp_path / "saved.bayesnet").stat().st_mode == usual.stat().st_mode


def refused(path, words=None):
    with pytest.raises(bn.FileFormatError, match=words):
        bn.load(path)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_files_are_refused(saved, keep):
    raw = saved.read_bytes()
    saved.write_bytes(raw[: keep if isinstance(keep, int) else int(keep * len(raw))])
    refused(saved)


def test_any_flipped_byte_is_noticed(saved):
    raw = saved.read_bytes()
    header = 8 + int.from_bytes(raw[:8], "little")
    rng = np.random.default_rng(0)
    places = [0, 8, header - 1, header, len(raw) - 1]
    places += rng.integers(8, header, 40).tolist() + rng.integers(header, len(raw), 20).tolist()
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1
        saved.write_bytes(bytes(changed))
        refused(saved)


def test_trailing_bytes_are_noticed(saved):
    saved.write_bytes(saved.read_bytes() + b"more")
    refused(saved)


def rewrite(path, edit=None, *, seal=True, **metadata):
    """The file again with an edited description; `seal` makes the checksum fit, as a forger would."""
    with safe_open(path, framework="numpy") as file:
        meta = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if edit is not None:
        description = json.loads(meta["description"])
        meta["description"] = json.dumps(edit(description) or description)
    if seal:
        meta["sha256"] = saving._checksum(meta["description"], tensors)
    path.write_bytes(to_bytes(tensors, metadata=meta | metadata))


def test_an_edited_description_does_not_match_its_checksum(saved):
    def edit(d):
        d["fields"]["likelihood"]["fields"]["noise_std"] = 1.0

    rewrite(saved, edit, seal=False)
    refused(saved, "checksum")


def test_another_version_is_named(saved):
    rewrite(saved, version="999")
    refused(saved, "version 999")


def unknown_class(d):
    d["fields"]["method"]["class"] = "Popen"


def other_module(d):
    d["fields"]["method"] = {"class": "subprocess.Popen", "fields": {"args": "true"}}


def missing_tensor(d):
    d["fields"]["latents"] = {"numpy": "elsewhere"}


def unknown_field(d):
    d["fields"]["colour"] = 3


def no_fields(d):
    d["fields"]["prior"].pop("fields")


def not_an_object(d):
    return [1, 2]


@pytest.mark.parametrize(
    "edit", [unknown_class, other_module, missing_tensor, unknown_field, no_fields, not_an_object]
)
def test_a_forged_description_is_refused(saved, edit):
    rewrite(saved, edit)
    refused(saved)


def test_files_that_are_not_ours_are_refused(tmp_path):
    path = tmp_path / "other"
    path.write_bytes(to_bytes({"a": np.zeros(3)}))
    refused(path, "not one that bayesnet wrote")
    path.write_bytes(b"\x80\x04N.")  # a pickle
    refused(path)
    path.write_text("x,y\n1,2\n")
    refused(path)
    with pytest.raises(bn.InputError, match="No file"):
        bn.load(tmp_path / "absent")


def test_what_needs_a_pickle_is_not_saved(small_posterior, tmp_path):
    import dataclasses

    class Mine:
        pass

    with pytest.raises(bn.UnsupportedError, match="without a pickle"):
        dataclasses.replace(small_posterior, method=Mine()).save(tmp_path / "x")
    assert not (tmp_path / "x").exists()


class Wave(eqx.Module):
    """A module with a static function, which prints its address."""

    linear: eqx.nn.Linear
    wave: object = eqx.field(static=True)

    def __init__(self, width, key):
        self.linear = eqx.nn.Linear(1, width, key=key)
        self.wave = lambda a: jnp.sin(a)

    def __call__(self, x):
        return self.wave(self.linear(x)).sum(keepdims=True)


@pytest.mark.slow
def test_a_foreign_network_is_passed_back(tmp_path):
    module = Wave(4, jax.random.key(0))
    x = np.linspace(-1, 1, 6)[:, None]
    post = bn.fit(
        bn.NetworkPrior(module),
        x,
        x[:, 0],
        inference=bn.HMC(chains=1, warmup=20, draws=10),
        warn=False,
    )
    path = tmp_path / "post"
    post.save(path)
    # Another object of the same shape, as a new process would build it.
    same = Wave(4, jax.random.key(1))
    again = bn.load(path, network=same)
    np.testing.assert_array_equal(again.predict(x).values, post.predict(x).values)
    with pytest.raises(bn.InputError, match="pass it again"):
        bn.load(path)
    with pytest.raises(bn.InputError, match="other parameters"):
        bn.load(path, network=Wave(5, jax.random.key(0)))
    with pytest.raises(bn.InputError, match="other parameters"):
        bn.load(path, network=bn.MLP((4,)))
    with pytest.raises(bn.InputError, match="Cannot use"):
        bn.load(path, network="wave")


@pytest.mark.slow
def test_another_process_predicts_the_same(small_posterior, saved):
    code = (
        "import sys, numpy as np, bayesnet as bn\n"
        f"print(repr(bn.load({str(saved)!r}).predict(np.array({X.tolist()})).mean.tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == small_posterior.predict(X).mean.tolist()
