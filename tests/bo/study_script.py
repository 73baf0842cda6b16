"""Run as a process by the tests: one worker of a study in a database.

Arguments: database URL, n_trials, directory of marks, and "die" (wait for ever in trial 7) or "run".
"""

import os
import sys
import time
from pathlib import Path

import optuna

from bayesnet.bo import minimize

SPACE = {"x": (0.0, 1.0), "k": (1, 5)}


def main():
    url, n_trials, marks, mode = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.bo.conftest import TINY, tiny_prior

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(params):
        with open(marks / f"calls-{os.getpid()}", "a") as file:
            file.write(f"{params}\n")
            count = file.tell()
        calls = len((marks / f"calls-{os.getpid()}").read_text().splitlines())
        if mode == "die" and calls == 7 and count:
            (marks / "waiting").touch()
            time.sleep(600)
        if mode == "slow":
            time.sleep(0.3)
        return (params["x"] - 0.3) ** 2 + params["k"]

    minimize(objective, SPACE, TINY, n_trials, url, prior=tiny_prior(2), n_startup_trials=4)


if __name__ == "__main__":
    main()
