"""Parameters of scikit-learn that are objects with settings of their own: `inference__draws`."""

from __future__ import annotations

import dataclasses
from typing import Any

from bayesnet._errors import InputError, unknown_name

NESTED = ("inference", "likelihood")


class NestedSettings:
    """`get_params` and `set_params` of an estimator whose `inference` and `likelihood` have settings.

    Stands before `BaseEstimator` among the bases. A setting is changed by replacing the (frozen) object.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings; with `deep` also those of `inference` and `likelihood`, as `inference__draws`."""
        params: dict[str, Any] = super().get_params(deep)  # type: ignore[misc]
        for name in NESTED if deep else ():
            settings = self._settings_of(name)
            for field in dataclasses.fields(settings) if settings is not None else ():
                params[f"{name}__{field.name}"] = getattr(settings, field.name)
        return params

    def set_params(self, **params: Any) -> Any:
        """Change settings, those of `inference` and `likelihood` as `inference__draws`.

        Raises `ValueError` for a setting that there is not.
        """
        nested: dict[str, dict[str, Any]] = {}
        for key in [key for key in params if key.partition("__")[0] in NESTED and "__" in key]:
            name, _, field = key.partition("__")
            nested.setdefault(name, {})[field] = params.pop(key)
        super().set_params(**params)  # type: ignore[misc]
        for name, changes in nested.items():
            settings = self._settings_of(name)
            known = [] if settings is None else [f.name for f in dataclasses.fields(settings)]
            for field in changes:
                if field not in known:
                    raise unknown_name(f"setting of {name}", field, known)
            setattr(self, name, dataclasses.replace(settings, **changes))
        return self

    def _settings_of(self, name: str) -> Any:
        """The object behind `inference` or `likelihood` that has settings (a name stands for one), or None."""
        from bayesnet.inference import PRESETS
        from bayesnet.likelihoods import resolve_likelihood

        value = getattr(self, name, None)
        if isinstance(value, str) and name == "inference":
            value = PRESETS[value]() if value in PRESETS else None
        elif isinstance(value, str):
            try:
                value = resolve_likelihood(value)
            except InputError:  # `fit` says so
                value = None
        elif name == "inference" and not hasattr(value, "supports"):
            value = None  # trained weights
        return value if dataclasses.is_dataclass(value) else None
