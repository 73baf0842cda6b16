"""Pictures are drawn, with labels and one scale."""

from __future__ import annotations

import numpy as np
import pytest

from bayesnet._errors import InputError
from bayesnet.networks import MLP
from bayesnet.priors import Box, GaussianProcess, NetworkPrior

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def test_prior_beside_target_on_one_scale() -> None:
    prior = NetworkPrior(MLP((5,)))
    figure = prior.show(GaussianProcess("rbf"), x=Box(-1, 2), num=4)
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() == pytest.approx((-1, 2))
    assert left.get_title() != right.get_title()
    assert left.get_xlabel()
    assert left.get_ylabel()
    assert len(left.lines) == 4 + 1  # the functions and the median
    band = left.collections[0].get_paths()[0].vertices[:, 1]
    middle = left.lines[-1].get_ydata()
    assert band.min() < middle.min() <= middle.max() < band.max()


def test_several_inputs_are_shown_along_segments() -> None:
    prior = NetworkPrior(MLP((5,)), in_dim=3)
    rows = np.random.default_rng(0).normal(size=(20, 3))
    figure = prior.show(GaussianProcess("rbf"), x=rows)
    assert len(figure.axes) == 6
    assert "segment" in figure.axes[0].get_xlabel()


def test_a_process_without_in_dim_and_own_axes() -> None:
    import matplotlib.pyplot as plt

    from bayesnet.plots import show_prior

    figure, ax = plt.subplots()
    assert show_prior(GaussianProcess("rbf"), x=np.linspace(0, 1, 5)[:, None], ax=ax) is figure
    with pytest.raises(InputError, match="x="):
        show_prior(GaussianProcess("rbf"))
    with pytest.raises(InputError, match="axes"):
        show_prior(NetworkPrior(MLP((5,)), in_dim=2), ax=ax)
    with pytest.raises(InputError, match="num"):
        show_prior(NetworkPrior(MLP((5,))), num=0)
