"""A numpyro model of whole tables as a prior: inputs, functions and noise are all its own."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet._errors import InputError, UnsupportedError
from bayesnet._types import Array, Float, Key

# Inputs, targets, and the noise-free function if there is one, of b tables with n rows.
Tables = tuple[Float[Array, "b n d"], Float[Array, "b n"], Float[Array, "b n"] | None]


@dataclass(frozen=True)
class NumpyroModel:
    """A numpyro model that draws tables, as the prior of `bn.PFN.train`.

    Args:
        model: a function of the number of rows, `model(n)`, or of rows and columns, `model(n, d)`,
            that draws all of a table: its sites `x` of shape (n, d) or (n,), and `y` of shape (n,)
            or (n, 1), in the units of the tables that are to be predicted. Sites are
            `numpyro.sample` or `numpyro.deterministic`; nothing is observed. It must be traceable
            by JAX.
        x, y: the names of these sites.
        f: the name of a site of the shape of y, the function without noise. Then a PFN tells
            epistemic from aleatoric parts. If None both of its heads are trained on y, and its
            predictions refuse to tell the parts, or to draw without noise.

    A table of fewer rows is a random choice of rows of a larger one, and so are queries. With rows
    that are exchangeable (independent given the parameters of the model) a trained PFN
    approximates the posterior predictive law of the model, in its own units: tables are not
    standardised, for the model knows their scale.

    Raises `InputError` for what is no function of one or two positional arguments.
    """

    model: Callable[..., Any]
    x: str = "x"
    y: str = "y"
    f: str | None = None

    def __post_init__(self) -> None:
        _ = self.takes_columns

    @property
    def takes_columns(self) -> bool:
        """Whether the model is called with the number of columns too."""
        said = "A numpyro model of tables is a function model(n) or model(n, d)"
        if not callable(self.model) or isinstance(self.model, type):
            raise InputError(f"{said}, got {self.model!r}.")
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        known = inspect.signature(self.model).parameters.values()
        needed = [p.name for p in known if p.default is p.empty and p.kind in kinds]
        if len(needed) not in (1, 2):
            raise InputError(f"{said}; {self.name} takes ({', '.join(needed)}).")
        return len(needed) == 2

    @property
    def name(self) -> str:
        """What the function is called."""
        return str(getattr(self.model, "__qualname__", type(self.model).__name__))

    def __repr__(self) -> str:
        # Without the function's address in memory, which is another one after a restart.
        return f"NumpyroModel({self.name}, x={self.x!r}, y={self.y!r}, f={self.f!r})"

    @property
    def in_dim(self) -> int:
        """The number of columns: that of x, or 1 where the model takes any.

        Raises what `check` raises.
        """
        return 1 if self.takes_columns else self.check(2, None)

    def check(self, rows: int, d: int | None) -> int:
        """The number of columns, from a trace of the model without any compute.

        Raises:
            InputError: a model that fails, without these sites, or with sites of other shapes.
            UnsupportedError: observed sites, for a prior is not conditioned on anything.
        """
        try:
            sites = jax.eval_shape(partial(self._sites, rows, d), jax.random.key(0))
        except (InputError, UnsupportedError):
            raise
        except Exception as error:
            raise InputError(
                f"{self.name} cannot draw a table of {rows} rows: {type(error).__name__}: {error}"
            ) from error
        shape = sites[self.x].shape
        if len(shape) not in (1, 2) or shape[0] != rows or 0 in shape:
            raise InputError(
                f"Site {self.x!r} of {self.name} must have the shape ({rows}, d) or ({rows},) for "
                f"{rows} rows, got {shape}."
            )
        for name in self._targets:
            if sites[name].shape not in ((rows,), (rows, 1)):
                raise InputError(
                    f"Site {name!r} of {self.name} must have the shape ({rows},) for {rows} rows, got "
                    f"{sites[name].shape}."
                )
        columns = shape[1] if len(shape) == 2 else 1
        if d is not None and columns != d:
            fix = "" if self.takes_columns else f": pass dims=({columns},)"
            raise InputError(f"{self.name} draws {columns} column(s), the tasks have {d}{fix}.")
        return int(columns)

    @property
    def _targets(self) -> tuple[str, ...]:
        return (self.y,) if self.f is None else (self.y, self.f)

    def _sites(self, rows: int, d: int | None, key: Key) -> dict[str, Array]:
        """The values of the sites of one table."""
        from numpyro import handlers

        arguments = (rows, 1 if d is None else d) if self.takes_columns else (rows,)
        trace = handlers.trace(handlers.seed(self.model, key)).get_trace(*arguments)
        for name, site in trace.items():
            if site["type"] == "sample" and site["is_observed"]:
                raise UnsupportedError(
                    f"Site {name!r} of {self.name} is observed. A prior draws all of its sites: leave out "
                    "obs= and numpyro.factor."
                )
        names = (self.x, *self._targets)
        known = [n for n, site in trace.items() if site["type"] in ("sample", "deterministic")]
        for name in names:
            if name not in known:
                raise InputError(
                    f"{self.name} has no site {name!r}; its sites are {', '.join(known) or 'none'}. Pass "
                    "their names, as in NumpyroModel(model, x='x', y='y')."
                )
        return {name: jnp.asarray(trace[name]["value"], jnp.float32) for name in names}

    def draw(self, key: Key, size: int, rows: int, d: int) -> Tables:
        """`size` tables of `rows` rows in random order; in the units of the model.

        Raises `InputError` for values that are not finite.
        """
        x, y, f = _draw(self, size, rows, d, key)
        for name, values in ((self.x, x), (self.y, y), (self.f, f)):
            if values is not None and not bool(jnp.isfinite(values).all()):
                raise InputError(f"{self.name} drew values of site {name!r} that are not finite.")
        return x, y, f

    def fingerprint(self, rows: int, d: int) -> str:
        """A digest of the program that draws tables: another model has another one."""
        program = jax.make_jaxpr(partial(_tables, self, 1, rows, d))(jax.random.key(0))
        digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr)).encode())
        for constant in program.consts:
            digest.update(np.asarray(constant).tobytes())
        return digest.hexdigest()[:12]


def _tables(model: NumpyroModel, size: int, rows: int, d: int, key: Key) -> Tables:
    def one(key: Key) -> Any:
        k_model, k_order = jax.random.split(key)
        sites = model._sites(rows, d, k_model)
        order = jax.random.permutation(k_order, rows)
        y, f = (
            None if name is None else sites[name].reshape(rows)[order]
            for name in (model.y, model.f)
        )
        return sites[model.x].reshape(rows, d)[order], y, f

    found: Tables = jax.vmap(one)(jax.random.split(key, size))
    return found


_draw = jax.jit(_tables, static_argnums=(0, 1, 2, 3))
