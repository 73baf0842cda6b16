"""Where studies are kept: a database that several workers may open, begin and resume."""

from __future__ import annotations

import json
import logging
import time
import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import distribution_to_json
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from bayesnet._errors import InputError
from bayesnet.bo.space import Space
from bayesnet.bo.workers import retry_callback

# Seconds between two signs of life of a running trial, and after which silence means death (on
# the same machine a dead process is seen at once).
HEARTBEAT = 10
GRACE = 60
# How often the tables of a database are asked for, which another worker may be making.
ATTEMPTS = 6
SPACE_KEY = "bayesnet:space"
DEFAULT_NAME = "bayesnet"

_log = logging.getLogger(__name__)


def open_study(
    storage: Any, name: str | None, direction: str, sampler: BaseSampler, space: Space
) -> Study:
    """The study of that name, as it was left or a new one.

    Raises `InputError` for a storage that cannot be used, or that holds a study of that name with another
    space or direction.
    """
    if name is None and storage is not None:
        name = DEFAULT_NAME
    study = optuna.create_study(
        storage=open_storage(storage),
        sampler=sampler,
        study_name=name,
        direction=StudyDirection[direction.upper()],
        load_if_exists=True,
    )
    described = {n: json.loads(distribution_to_json(d)) for n, d in space.distributions.items()}
    stored = study._storage.get_study_system_attrs(study._study_id).get(SPACE_KEY)
    if stored is None and study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        _log.info("Study %r was begun elsewhere: its space is not checked.", study.study_name)
    if stored is None:
        study._storage.set_study_system_attr(study._study_id, SPACE_KEY, described)
    elif stored != described:
        raise InputError(
            f"The storage holds a study {study.study_name!r} with another space. Give this one "
            "another study_name, or the space that it was begun with."
        )
    if study.direction.name.lower() != direction:
        raise InputError(
            f"The storage holds a study {study.study_name!r} with the direction "
            f"{study.direction.name.lower()!r}, not {direction!r}: give another study_name."
        )
    return study


def open_storage(storage: Any) -> Any:
    """The storage that a database URL names, with a heartbeat; another storage, or None, as it is.

    Raises `InputError` for what is neither, and for a database that cannot be opened.
    """
    if not isinstance(storage, str):
        if storage is not None and not isinstance(storage, BaseStorage):
            raise InputError(
                "storage must be None, a database URL such as 'sqlite:///study.db', or an Optuna "
                f"storage, got {type(storage).__name__}."
            )
        return storage
    if "://" not in storage:
        raise InputError(
            f"storage {storage!r} is no database URL; for a file: 'sqlite:///{storage}'."
        )
    # SQLite locks its file while another worker writes: wait, rather than fail.
    patient = {"connect_args": {"timeout": 60}} if storage.startswith("sqlite") else None
    left = ATTEMPTS
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the heartbeat is experimental in Optuna 5
                return RDBStorage(
                    storage,
                    engine_kwargs=patient,
                    heartbeat_interval=HEARTBEAT,
                    grace_period=GRACE,
                    heartbeat_stale_trial_callback=retry_callback(),
                )
        except SQLAlchemyError as error:
            # Workers that start together make the same tables; who comes late finds them made.
            left -= 1
            if not left or not isinstance(error, DBAPIError):
                reason = str(error.__cause__ or error).splitlines()[0]
                raise InputError(f"The storage {storage!r} cannot be used: {reason}") from error
            time.sleep(np.random.default_rng().uniform(0.1, 0.5))
