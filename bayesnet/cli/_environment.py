"""The environment of a command: compiled programs are kept between runs."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set JAX's compilation cache in `environment`, unless the user has set it.

    A command is a new process every time: without the cache each would spend several seconds
    on compiling the programs of the last one.
    """
    if "JAX_COMPILATION_CACHE_DIR" in environment:
        return
    # As `bayesnet.defaults.cache_dir`, which cannot be asked: its room imports jax.
    chosen = environment.get("BAYESNET_CACHE_DIR")
    base = environment.get("XDG_CACHE_HOME")
    folder = Path(chosen) if chosen else (Path(base) if base else _home_cache()) / "bayesnet"
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


def _home_cache() -> Path:
    return Path.home() / ".cache"
