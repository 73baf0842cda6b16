"""Files that earlier versions wrote load, and predict what they predicted then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayesnet as bn
from tests.saved.write import NEW, answer, draws, numbers

HERE = Path(__file__).parent
EXPECTED = {
    path.parent.name: json.loads(path.read_text()) for path in sorted(HERE.glob("*/expected.json"))
}


def test_every_file_is_tested():
    for version, expected in EXPECTED.items():
        assert {p.stem for p in (HERE / version).glob("*.bayesnet")} == set(expected)
    assert EXPECTED


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version in EXPECTED for name in EXPECTED[version]]
)
def test_an_old_file_predicts_as_it_did(version, name):
    loaded = bn.load(HERE / version / f"{name}.bayesnet")
    if name.startswith("prior_"):
        found = draws(loaded)
    elif name.startswith("weights_of_"):
        again = type(loaded).load(HERE / version / f"{name}.bayesnet")  # in single precision
        found = numbers(again)
    else:
        found = answer(loaded)
    expected = EXPECTED[version][name]
    assert set(found) == set(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-3, atol=1e-5)


def test_a_file_keeps_the_names_of_columns():
    loaded = bn.load(HERE / "0.2.0a1" / "exact_frame.bayesnet")
    swapped = pd.DataFrame(NEW[:, ::-1], columns=["dose", "heat"])
    np.testing.assert_array_equal(loaded.predict(swapped).mean, loaded.predict(NEW).mean)
    with pytest.raises(bn.InputError, match="dose"):
        loaded.predict(swapped.rename(columns={"dose": "does"}))
