"""First calls that take long say so in the log: once, and only where they are slow. No clock runs here."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import bayesnet as bn
from bayesnet import _notices

X = np.linspace(-1, 1, 8)[:, None]
Y = np.sin(2 * X[:, 0])
PROCESS = bn.GaussianProcess("rbf", lengthscale=1.0)


class Slow:
    """A timer whose time has come when it starts."""

    def __init__(self, seconds, action, args):
        self.seconds, self.action, self.args = seconds, action, args
        self.cancelled = False
        timers.append(self)

    def start(self):
        self.action(*self.args)

    def cancel(self):
        self.cancelled = True


class Quick(Slow):
    """A timer whose time does not come."""

    def start(self):
        pass


timers: list[Slow] = []


@pytest.fixture
def timer(monkeypatch):
    def use(kind):
        timers.clear()
        _notices._say_once.cache_clear()
        monkeypatch.setattr(_notices, "Timer", kind)

    yield use
    _notices._say_once.cache_clear()


def test_a_slow_phase_is_said_once_and_a_quick_one_never(timer, caplog):
    timer(Slow)
    for _ in range(3):
        with _notices.said_if_slow("Compiling."):
            pass
    with _notices.said_if_slow("Matching."):
        pass
    assert [(r.name, r.levelno, r.message) for r in caplog.records] == [
        ("bayesnet", logging.WARNING, "Compiling."),
        ("bayesnet", logging.WARNING, "Matching."),
    ]
    caplog.clear()
    timer(Quick)
    with _notices.said_if_slow("Compiling."):
        pass
    assert not caplog.records


def test_the_timer_waits_five_seconds_and_ends_with_its_phase(timer):
    timer(Quick)
    with _notices.said_if_slow("Compiling."):
        assert timers[0].seconds == 5.0
        assert timers[0].daemon  # a process that ends does not wait for it
        assert not timers[0].cancelled
    assert timers[0].cancelled

    def interrupted():
        with _notices.said_if_slow("Compiling."):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert timers[1].cancelled


def test_it_is_seen_where_no_logging_is_set_up(timer, capsys, monkeypatch):
    timer(Slow)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with _notices.said_if_slow("Compiling."):
        pass
    assert "Compiling." in capsys.readouterr().err


METHODS = {
    "hmc": (bn.NetworkPrior(bn.MLP((6,))), bn.HMC(chains=2, warmup=0, draws=1), "Compiling"),
    "exact": (PROCESS, "exact", "first call in a process"),
    "pfn": (None, "pfn", "first pass in a process"),
    "amortised": (None, "amortised", "first pass in a process"),
}


@pytest.mark.parametrize("name", METHODS)
def test_fits_say_what_they_do(name, timer, caplog):
    prior, method, words = METHODS[name]
    timer(Slow)
    bn.fit(prior, X, Y, inference=method, warn=False).predict(X)
    assert [words in r.message for r in caplog.records] == [True]
    caplog.clear()
    timer(Quick)
    bn.fit(prior, X, Y, inference=method, warn=False).predict(X)
    assert not caplog.records
    assert all(t.cancelled for t in timers)


def test_matches_say_what_they_do(timer, caplog):
    timer(Slow)
    prior = bn.NetworkPrior(bn.MLP((6,)), in_dim=1)
    bn.match_prior(prior, PROCESS, bn.Box([-1], [1]), steps=1, num_functions=16)
    assert "over 1 input(s) to GaussianProcess" in caplog.records[0].message
    assert "once for each number of columns" in caplog.records[0].message
    assert len(caplog.records) == 1


def test_labels_by_trained_weights_say_what_they_do(timer, caplog):
    timer(Slow)
    post = bn.fit(None, X, Y > 0, likelihood="bernoulli", inference="pfn", warn=False)
    post.predict(X)
    assert ["first pass in a process" in r.message for r in caplog.records] == [True]


def test_the_first_step_of_a_loop_says_what_it_does(timer, caplog):
    torch = pytest.importorskip("torch")
    pytest.importorskip("botorch")
    from bayesnet.bo.optimise import Search, maximise

    timer(Slow)
    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.double)
    best = maximise(
        lambda points: -((points[..., 0, 0] - 0.3) ** 2),
        bounds,
        search=Search(num_restarts=1, raw_samples=16, maxiter=10),
        around=bounds[:0],
        seed=0,
    )
    assert float(best) == pytest.approx(0.3, abs=1e-3)
    assert ["Maximising the acquisition" in r.message for r in caplog.records] == [True]
