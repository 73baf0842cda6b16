"""Scale mixtures of Gaussian processes: one random amplitude for the whole function.

`f = mean + sqrt(s) g` with `g ~ GP(0, K)` and `s` from a law of variances: the limit of wide
networks whose last layer has a random variance (Lee, Yun, Yang & Lee 2022, theorem 3.1). With an
inverse gamma law it is the Student-t process (Shah, Wilson & Ghahramani 2014).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesnet import devices
from bayesnet._errors import ConvergenceWarning, InputError, unknown_name
from bayesnet._types import Array, ArrayLike, Float, Key, as_key
from bayesnet.data import check_table
from bayesnet.priors.evidence import LogEvidence
from bayesnet.priors.gaussian_process import GaussianProcess
from bayesnet.priors.kernel_model import KernelModel
from bayesnet.priors.law_moments import law_moment
from bayesnet.priors.matching.target import draw_target
from bayesnet.priors.process_solution import ScaleModel, solve
from bayesnet.priors.variance_laws import as_variance_law

if TYPE_CHECKING:
    from collections.abc import Callable

NOISES = ("inside", "outside")


@dataclass(frozen=True, init=False)
class ScaleMixture:
    """`base` with a random variance `s` of its functions, drawn once a function.

    Args:
        base: a kernel prior: `bn.GaussianProcess`, `bn.kernels.NNGP`, or an object with `kernel`
            and `sample`. Its own variance is the unit of `s`.
        scale: the law of s: `bn.InverseGamma(a, b)` (a Student-t process of 2a degrees of freedom
            and scale (b / a) K), `bn.Gamma`, `bn.LogNormal`, `bn.BurrXII`,
            `bn.OnStd(bn.HalfCauchy(1.0))` (a law of sqrt(s)), a numpyro distribution, or a number.
        noise: "inside": the observation noise scales with the function, of variance
            `s * noise_std^2` (closed form with `InverseGamma`); "outside": it is independent of s.
        per_output: one s for each output, or (False) one for all, as the outputs of a network have.

    The covariance of its functions is `E[s] K`, infinite where E[s] is. It has `sample`, so that
    networks can be matched to it.

    Raises:
        InputError: a law that is not of one positive number, unknown `noise`, a base without a
            kernel.
    """

    base: Any
    scale: Any
    noise: str
    per_output: bool

    def __init__(
        self, base: Any, scale: Any, *, noise: str = "inside", per_output: bool = False
    ) -> None:
        if isinstance(base, (type, ScaleMixture)) or not (
            hasattr(base, "kernel") and hasattr(base, "sample")
        ):
            raise InputError(
                "A scale mixture is of a kernel prior such as bn.GaussianProcess or bn.kernels.NNGP, got "
                f"{base!r}. A network prior takes weights=bn.weights.ScaledLastLayer(law)."
            )
        if noise not in NOISES:
            raise unknown_name("noise", noise, NOISES)
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "scale", as_variance_law(scale))
        object.__setattr__(self, "noise", noise)
        object.__setattr__(self, "per_output", bool(per_output))

    @property
    def units(self) -> str:
        return getattr(self.base, "units", "scaled")

    @property
    def out_dim(self) -> int:
        return int(getattr(self.base, "out_dim", 1))

    @property
    def random(self) -> bool:
        """Whether the base has random hyper-parameters of its own."""
        return bool(getattr(self.base, "random", False))

    @property
    def expected_scale(self) -> float:
        """E[s]; infinity where it does not exist."""
        return law_moment(self.scale, 1.0)

    def scale_model(self, **options: Any) -> ScaleModel:
        """The law and the place of the noise as the algebra takes them."""
        return ScaleModel(self.scale, self.noise, self.per_output, **options)

    def kernel(self, x1: ArrayLike, x2: ArrayLike) -> Float[Array, "n k"]:
        """The covariance `E[s] K` of function values at rows (n, d) and (k, d).

        Raises `InputError` where E[s] is infinite (`InverseGamma` with a <= 1).
        """
        expected = self.expected_scale
        if not np.isfinite(expected):
            raise InputError(
                f"The functions have no covariance: the mean of {self.scale} is infinite. Its base has a "
                "kernel: mixture.base.kernel(x1, x2)."
            )
        return expected * self.base.kernel(x1, x2)

    @devices.single_precision()
    def sample(self, key: int | Key, x: ArrayLike, num_samples: int) -> Float[Array, "s n m"]:
        """`num_samples` joint draws at the rows of `x` (n, d), each with a scale of its own."""
        x = jnp.asarray(x)
        return self.sample_many(as_key(key), x[None], num_samples)[0]

    @devices.single_precision()
    def sample_many(
        self, key: Key, xs: Float[Array, "k n d"], num_samples: int
    ) -> Float[Array, "k s n m"]:
        """Independent draws for each of `k` sets of rows (see `sample`)."""
        key_scale, key_function, key_mean = jax.random.split(key, 3)
        groups = self.out_dim if self.per_output else 1
        s = self.scale.sample(key_scale, (len(xs), num_samples, 1, groups))
        root = jnp.sqrt(jnp.asarray(s, jnp.float32))
        centred, mean = _centred(self.base)
        draws = draw_target(centred, key_function, xs, num_samples)
        return root * draws + mean(key_mean, xs, num_samples)

    def log_evidence(
        self, X: ArrayLike, y: ArrayLike, noise_std: ArrayLike, *, tolerance: float = 1e-6
    ) -> LogEvidence:
        """The log density of `y` (n,) or (n, m) at rows X: with noise_std 0 that of function values.

        All in the coordinates of `units` (see `bn.GaussianProcess.log_evidence`); `noise_std` is a number, (n,) or (n, m). Closed form for an
        inverse gamma law with noise "inside" (a multivariate t density), else by quadrature, whose
        estimated error is the `standard_error`.

        Raises `InputError` for shapes that do not agree, random hyper-parameters of the base, and
        noise_std 0 with noise "outside".
        """
        x, t, _ = check_table(X, y)
        model = KernelModel(self.base)
        if model.free.size:
            raise InputError(
                "The base has random hyper-parameters: bn.Exact() learns them; state fixed ones for an "
                "evidence in closed form."
            )
        if t.shape[1] != self.out_dim:
            raise InputError(f"y has {t.shape[1]} output(s), the prior has {self.out_dim}.")
        std = np.asarray(noise_std, np.float64)
        std = std[:, None] if std.ndim == 1 else std
        if std.ndim not in (0, 2) or (std.ndim and std.shape not in ((len(x), 1), t.shape)):
            raise InputError(
                f"noise_std must be a number or have shape ({len(x)},) or {t.shape}, got {std.shape}."
            )
        lowest = std.min() if std.size else 0.0
        if not np.isfinite(std).all() or lowest < 0 or (lowest == 0 and self.noise == "outside"):
            raise InputError("noise_std must be finite, not negative, and positive outside.")
        u = np.zeros(0)
        noise = np.broadcast_to(std**2, t.shape)
        residual = t - model.mean(u, x)
        found = solve(model.matrix(u, x, x), noise, residual, self.scale_model(tolerance=tolerance))
        if found.error > tolerance:
            warnings.warn(
                f"The integral over the scale is known to {found.error:.1e} nats only.",
                ConvergenceWarning,
                stacklevel=2,
            )
        method = "closed form" if found.rule == "closed form" else "quadrature"
        return LogEvidence(found.log_evidence, found.error, None, method)


def _centred(base: Any) -> tuple[Any, Callable[..., Any]]:
    """The base without its mean, and the means of draws."""
    if getattr(base, "mean", 0.0) == 0.0:
        return base, lambda key, xs, num: 0.0
    if isinstance(base, GaussianProcess):
        centred = GaussianProcess(base.covariance, out_dim=base.out_dim, units=base.units)
        return centred, base._means
    raise InputError(
        f"{type(base).__name__} has a mean that is not 0, which a scale mixture cannot take out of its "
        "draws: use a bn.GaussianProcess."
    )
