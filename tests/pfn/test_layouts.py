"""Training in bfloat16 and on several devices; what is lost when a run is killed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import bayesnet as bn
from bayesnet.pfn import checkpoint, loop
from bayesnet.pfn.attention import IN_BFLOAT16
from bayesnet.pfn.descent import descend
from bayesnet.pfn.settings import Training
from bayesnet.pfn.train import run
from bayesnet.pfn.transformer import Transformer
from tests.pfn.test_interfaces import RUN, call
from tests.pfn.test_training import SMALL, tasks


def problem(precision):
    """A network, its loss on a small table, and one step of Adam on it, not compiled."""
    training = Training(steps=6, **SMALL | {"precision": precision})
    network = training.network(jax.random.key(0))
    # Heads start at zero: without a gradient to the layers.
    network = replace(network, head_y=0.1 * jax.random.normal(jax.random.key(1), (16, 24)))
    x = jax.random.normal(jax.random.key(2), (4, 2))
    bars = bn.pfn.Bars(jnp.linspace(-2.0, 2.0, 23), jnp.ones(2))

    def loss(network):
        logits, _ = network(x, x[:, 0], jnp.ones(4, bool), x + 0.5, jnp.ones(2), bars)
        value = -jax.nn.log_softmax(logits)[:, 7].mean()
        return value, value[None]

    def step(network):
        return descend(training, loss, network, training.optimiser().init(network))

    return network, loss, step


def products(jaxpr):
    """The types of the operands of all matrix products in a program, inner programs included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield tuple(v.aval.dtype.name for v in equation.invars)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from products(inner)


def test_bfloat16_is_for_the_products_of_layers_alone():
    counted = {}
    for precision in ("float32", "bfloat16"):
        network, _, step = problem(precision)
        found = list(products(jax.make_jaxpr(step)(network).jaxpr))
        counted[precision] = found.count(("bfloat16", "bfloat16")), len(found)
        assert set(found) <= {("float32", "float32"), ("bfloat16", "bfloat16")}
        after, optimiser, _ = jax.eval_shape(step, network)
        dtypes = {a.dtype.name for a in jax.tree.leaves((after, optimiser))}
        assert dtypes <= {"float32", "int32"}
    assert counted["float32"][0] == 0
    assert counted["bfloat16"][1] == counted["float32"][1]
    # Of two layers: 3 of queries (q, mixed, out) and 2 of the perceptron, keys and values
    # of 2 contexts, one context layer that is applied: each once forward, twice backward. Scores have
    # squared distances in them, and stay in float32.
    assert counted["bfloat16"][0] >= 3 * (2 * 5 + 2 * 2 + 5) - 6


@pytest.mark.slow
def test_gradients_in_bfloat16_are_those_in_float32_to_its_rounding():
    network, loss, _ = problem("float32")
    from bayesnet.pfn.attention import AttentionLayer
    from bayesnet.pfn.precision import rounded

    def low(network):
        return loss(rounded(network, AttentionLayer, IN_BFLOAT16))[0]

    exact = jax.jit(jax.grad(lambda n: loss(n)[0]))(network)
    found = jax.jit(jax.grad(low))(network)
    for name in IN_BFLOAT16:
        a, b = (np.asarray(getattr(g.layers[0], name)) for g in (exact, found))
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert b.dtype == np.float32
        assert 0 < error < 0.05, name


def test_knobs_of_layouts_with_mistakes_are_refused():
    with pytest.raises(bn.InputError, match="precision"):
        Training(precision="float16")
    with pytest.raises(bn.InputError, match="divide batch"):
        Training(batch=8, devices=3)
    with pytest.raises(bn.InputError, match="divide batch"):
        Training(devices=0)
    # Before any task is drawn.
    with pytest.raises(bn.InputError, match="JAX sees 1 of the kind"):
        run(tasks(), Training(steps=6, **SMALL | {"devices": 8}))


def test_layouts_on_the_command_line(tmp_path):
    (tmp_path / "run.toml").write_text(RUN)
    for options, message in (
        (("--precision", "float16"), "bfloat16"),
        (("--devices", "3"), "divide batch"),
        (("--devices", "4"), "JAX sees 1 of the kind"),
    ):
        code, _, error = call(
            "pfn", "train", tmp_path / "run.toml", "--out", tmp_path / "w.safetensors", *options
        )
        assert code == 2
        assert message in error
    assert not (tmp_path / "w.safetensors").exists()


def test_checkpoints_agree_in_what_makes_their_results():
    plain = Training(steps=6, **SMALL)
    # As of runs before there was a choice: these go on.
    assert list(plain.identity()) == [
        "batch", "buckets", "dims", "dim_weights", "max_dim", "width", "depth", "heads", "hidden",
        "bars", "queries", "learning_rate", "warmup", "seed",
    ]  # fmt: skip
    same = replace(plain, steps=9, devices=2)
    assert same.identity() == plain.identity()
    assert replace(plain, precision="bfloat16").identity() != plain.identity()


DEVICES = """
import dataclasses, json, sys
import jax, numpy as np
from bayesnet.pfn.settings import Training
from bayesnet.pfn.train import BarsObjective, run
from bayesnet.pfn.sharding import shared_out
from tests.pfn.test_training import SMALL, tasks

assert len(jax.devices()) == 2
one = Training(steps=4, **SMALL | {"devices": 1})
two = dataclasses.replace(one, devices=2)
parts = shared_out(np.zeros((8, 3)), 8, 2).addressable_shards
assert [p.data.shape for p in parts] == [(4, 3), (4, 3)]
assert len({p.device for p in parts}) == 2

states = {}
for name, training in (("one", one), ("two", two), ("again", two)):
    state = run(tasks(), training, folder=f"{sys.argv[1]}/{name}", log_every=1)
    assert all(len(a.devices()) == 1 for a in jax.tree.leaves(state))
    states[name] = jax.tree.leaves(state)
assert all(np.array_equal(a, b) for a, b in zip(states["two"], states["again"]))
# A checkpoint of two devices goes on with one, and the other way round.
for first, then in ((two, one), (one, two)):
    folder = f"{sys.argv[1]}/{first.devices}{then.devices}"
    run(tasks(), first, folder=folder, stop_at=2)
    states[folder] = jax.tree.leaves(run(tasks(), then, folder=folder))
gaps = {
    name: max(float(np.abs(a - b).max()) for a, b in zip(states["one"], state))
    for name, state in states.items()
}
print(json.dumps(gaps))
"""


@pytest.mark.slow
def test_several_devices_see_the_same_tasks_and_come_to_the_same_weights(tmp_path):
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert done.returncode == 0, done.stderr
    gaps = json.loads(done.stdout)
    # Adam's first steps are of the size of its learning rate, 1e-3, whatever the gradient.
    assert all(gap < 2e-5 for gap in gaps.values()), gaps
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    for a, b in zip(*logs, strict=True):
        assert a["recent_y"] == pytest.approx(b["recent_y"], rel=1e-5)
        assert a["recent_f"] == pytest.approx(b["recent_f"], rel=1e-5)
    assert logs[0][0]["recent_y"] != logs[0][1]["recent_y"]


class Clock:
    """A step takes 7 seconds, and counts."""

    training = Training(steps=100, **SMALL)
    losses = ("loss",)

    def __init__(self):
        self.now = 0.0

    def identity(self):
        return "clock"

    def start(self):
        return [jnp.zeros(1)]

    def step(self, state, number):
        self.now += 7.0
        return [state[0] + 1], np.zeros(1)

    def evaluate(self, state):
        return {}


def test_a_minute_of_work_is_kept(tmp_path, monkeypatch):
    """At no time is what would be lost older than a minute."""
    clock = Clock()
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock.now)
    kept = []
    lost = []

    def look(phase, done, total):
        path = tmp_path / checkpoint.CHECKPOINT
        kept.append(checkpoint.restore(path, clock.start(), "clock")[1] if path.is_file() else 0)
        lost.append(7.0 * (done - kept[-1]))

    state = loop.run_loop(clock, folder=tmp_path, progress=look)
    assert float(state[0][0]) == 100
    assert max(lost) <= 60
    # And not at every step: writing takes time.
    assert len(set(kept)) <= 100 * 7 / checkpoint.EVERY + 1


KILLED = """
import sys, time
import bayesnet.pfn.loop as loop
from bayesnet.pfn.settings import Training
from bayesnet.pfn.train import run
from tests.pfn.test_training import SMALL, tasks

loop.EVERY = 0.0  # a checkpoint after every step

def wait_to_be_killed(phase, done, total):
    if done == 4:  # which is lost: it has no checkpoint yet
        print("killable", flush=True)
        time.sleep(600)

run(tasks(), Training(steps=6, **SMALL), folder=sys.argv[1], progress=wait_to_be_killed)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights_bit_for_bit(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        try:
            assert victim.stdout.readline() == "killable\n"
        finally:
            os.kill(victim.pid, signal.SIGKILL)
    assert victim.returncode == -signal.SIGKILL
    training = Training(steps=6, **SMALL)
    seen = []
    resumed = run(tasks(), training, folder=tmp_path, progress=lambda p, d, t: seen.append(d))
    assert seen == [4, 5, 6]
    unbroken = run(tasks(), training)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(unbroken), strict=True):
        assert np.array_equal(a, b)
    moved = training.network(jax.random.fold_in(jax.random.key(0), 0))
    assert isinstance(resumed.network, Transformer)
    assert not np.array_equal(moved.null_token, resumed.network.null_token)
