import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["torch", "botorch", "optuna"])
def test_a_missing_extra_is_named(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from bayesnet._errors import MissingExtraError
try:
    import bayesnet.bo
except MissingExtraError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert missing in run.stdout
    assert "pip install bayesnet[bo]" in run.stdout
