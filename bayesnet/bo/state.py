"""The surrogate of a loop, step after step: coordinates that stay, chains that go on.

Between two steps a table gains a row and little else changes. So the box scales X once and for
all, the scale of y has hysteresis (`bo.scaling`), the prior is matched at the first step, and
chains start where the last ones stopped. Rows are padded to size buckets, so that a new one does
not compile anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bayesnet._columns import Names, names_at_fit
from bayesnet._errors import InputError
from bayesnet._matrix import as_matrix, as_numbers
from bayesnet._renamed import renamed, warn_renamed
from bayesnet._repr import brief
from bayesnet._types import ArrayLike
from bayesnet.bo.chains import ANEW, MOST_RUNS, settled
from bayesnet.bo.findings import Findings, findings, looks_noisy, noise_level
from bayesnet.bo.noise import loop_likelihood
from bayesnet.bo.scaling import BIGGEST, robust_scale, winsorise
from bayesnet.data import Scaling, check_table
from bayesnet.diagnostics.convergence import warn_if_untrusted
from bayesnet.inference import HMC, NUTS, Exact, resolve_inference
from bayesnet.likelihoods import resolve_likelihood
from bayesnet.pfn.preset import is_trained, trained_weights
from bayesnet.posterior import FunctionDraws
from bayesnet.surrogates import Surrogate
from bayesnet.surrogates.checks import check_likelihood, check_method
from bayesnet.surrogates.tensors import as_tensor

# Small chains for a loop: two of 128 draws, trajectories cut at 128 steps.
LOOP_HMC = HMC(chains=2, warmup=300, draws=128, max_steps=128)
LOOP_NUTS = NUTS(chains=2, warmup=200, draws=128, max_depth=7)
# The warm-up of chains that go on from the last step, as a part of the whole one.
WARM_PART = 1 / 3
# The mass matrix is tuned anew when the table has grown by this factor since it was.
GROWTH = 1.5


def loop_inference(surrogate: Any) -> Any:
    """The method that a name means in a loop: smaller chains; a method passes through.

    Raises `InputError` for an unknown name.
    """
    if surrogate == "hmc":
        return LOOP_HMC
    if surrogate == "nuts":
        return LOOP_NUTS
    return surrogate if is_trained(surrogate) else resolve_inference(surrogate)


@renamed(inference="surrogate")
@dataclass(frozen=True)
class LoopSettings:
    """What stays the same over a study.

    Raises `UnsupportedError` for a likelihood of classes or counts.

    Args:
        surrogate: "hmc", "nuts" (small chains), "pfn" or a `bn.PFN`, or a method such as
            `bn.HMC(chains=4)`.
        prior, target: as for `bn.fit`; the prior is matched at the first step.
        likelihood: as for `bn.fit`; if None, Gaussian noise under a small law, `LogNormal(log(scale of
            y) - 4, 0.5)` (median 0.018 of the spread of y): `y_var` replaces it, and trained weights
            keep the law they were trained on. For noisy objectives state a wider one, such as
            `bn.GaussianLikelihood()` (median 0.14 of the spread).
        maximize: which tail of y is the good one (the other is winsorised).
        device: where JAX runs.
        warn: warn at every step that has not converged; off, as short chains often have not.
    """

    surrogate: Any = "hmc"
    prior: Any = None
    target: Any = None
    likelihood: Any = None
    maximize: bool = True
    device: Any = "auto"
    warn: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "surrogate", loop_inference(check_method(self.surrogate)))
        check_likelihood(resolve_likelihood(self.likelihood))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Pickles of samplers know `surrogate` by its old word."""
        word = {"inference": "surrogate"}
        self.__dict__.update({word.get(name, name): value for name, value in state.items()})

    @property
    def inference(self) -> Any:
        """The old word for `surrogate`."""
        warn_renamed("LoopSettings.inference", "surrogate")
        return self.surrogate

    @property
    def draws_functions(self) -> bool:
        """Whether the surrogate is a set of function draws: not a process, and no PFN."""
        return not is_trained(self.surrogate) and not hasattr(self.surrogate, "choose_prior")

    @property
    def max_rows(self) -> int | None:
        """The most trials that the surrogate can be fitted to, if there is a limit: that of trained weights."""
        return trained_weights(self.surrogate).max_rows if is_trained(self.surrogate) else None


@dataclass(frozen=True, eq=False)
class LoopState:
    """A fitted surrogate and what the next step starts from.

    Args:
        bounds: (2, d), the box that scales X.
        settings: see `LoopSettings`.

    The other fields are made by `update`: `model` (a BoTorch model in user units, None before the
    first update), `names` (of the columns, if the bounds or the first table were a data frame: later
    frames are put in their order), `y_scale` (location, scale), `tuned_at` (rows when the mass was last tuned),
    `moved` (whether the last update changed the scale of y), `findings` (what the last update found
    about its chains and the noise, see `bayesnet.bo.Findings`), `told` (the causes of which the log was told).
    """

    bounds: np.ndarray
    settings: LoopSettings = field(default_factory=LoopSettings)
    model: Surrogate | None = None
    y_scale: tuple[float, float] | None = None
    tuned_at: int = 0
    moved: bool = False
    names: Names | None = None
    findings: Findings = field(default_factory=Findings)
    told: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        d, surrogate = self.bounds.shape[1], brief(self.settings.surrogate)
        seen = "no data yet" if self.model is None else repr(self.posterior)
        return f"LoopState({surrogate} in a box of {d} column(s)): {seen}"

    def __post_init__(self) -> None:
        if self.names is None:
            object.__setattr__(self, "names", names_at_fit(self.bounds, "bounds"))
        object.__setattr__(self, "bounds", check_bounds(self.bounds))

    @property
    def posterior(self) -> Any:
        """The `FunctionDraws` of the last update, or None."""
        return None if self.model is None else self.model.fitted

    def update(
        self, X: ArrayLike, y: ArrayLike, y_var: ArrayLike | None = None, *, seed: int = 0
    ) -> LoopState:
        """The state with the surrogate fitted to the whole table so far.

        Args:
            X: inputs, n x d, in user units, as all of these.
            y: targets, n or n x 1, infinities allowed.
            y_var: known noise variances, or None.
            seed: of the chains.

        Raises `InputError` for a table that cannot be used.
        """
        settings = self.settings
        targets = as_numbers(y)
        if targets.ndim == 2 and targets.shape[1] != 1:
            raise InputError(f"One objective is optimized; y has {targets.shape[1]} columns.")
        if (np.abs(targets) > BIGGEST).any():
            if np.isfinite(targets).any() and not (np.abs(targets) <= BIGGEST).any():
                raise InputError(
                    f"All y are beyond {BIGGEST:g}, which stands for infinity: divide y by a large number first."
                )
            targets = winsorise(targets.ravel(), maximize=settings.maximize)
        names = names_at_fit(X, "X") if self.names is None else self.names
        x_matrix, y_matrix, variance = check_table(X, targets, y_var, known=names)
        if x_matrix.shape[1] != self.bounds.shape[1]:
            raise InputError(
                f"X has {x_matrix.shape[1]} columns, the bounds are for {self.bounds.shape[1]}."
            )
        clipped = winsorise(y_matrix[:, 0], maximize=settings.maximize)
        y_scale, moved = robust_scale(clipped, self.y_scale)
        loc, spread = (np.array([v]) for v in y_scale)
        # The noise is relative to the spread without outliers, as kept from trial to trial.
        scaling = replace(Scaling.from_bounds(self.bounds, loc, spread, spread), names=names)
        cold = self.model is None or moved or len(clipped) >= GROWTH * self.tuned_at
        train_X, train_Y = as_tensor(x_matrix), as_tensor(clipped).unsqueeze(1)
        train_Yvar = None if variance is None else as_tensor(variance)
        likelihood = loop_likelihood(
            settings.likelihood,
            settings.surrogate,
            y_scale[1],
            row_variances=variance is not None,
        )

        default_noise = likelihood is not settings.likelihood

        def fitted(stated: dict[str, Any], init: Any, method: Any, attempt: int) -> Any:
            return Surrogate(
                train_X,
                train_Y,
                train_Yvar,
                inference=method,
                likelihood=likelihood,
                scaling=scaling,
                seed=seed + attempt,
                init=init,
                device=settings.device,
                warn=settings.warn and not settings.draws_functions,  # chains are judged below
                **stated,
            )

        methods = _warmed_up(settings.surrogate)
        stated = {"prior": settings.prior, "target": settings.target}
        if isinstance(self.posterior, FunctionDraws):
            # Matched already. (Exact inference chooses hyper-parameters anew from what the user stated.)
            stated = {"prior": self.posterior.prior}
        model = fitted(stated, self._start(cold), methods["full" if cold else "short"], 0)

        matched = {"prior": getattr(model.fitted, "prior", None)}

        def again(last: FunctionDraws, how: str, run: int) -> FunctionDraws:
            init = replace(last, states=()) if how == "full" else last
            further: FunctionDraws = fitted(matched, init, methods[how], run).fitted
            return further

        check, runs = None, 0
        if isinstance(model.fitted, FunctionDraws):
            draws, check, runs = settled(model.fitted, again)
            suspect = default_noise and check is not None and "noise" not in self.findings.problems
            if suspect and looks_noisy(draws, y_scale[1]):
                # A surprising row throws chains far from the data at once, and they call it noise and stay:
                # R-hat sees nothing. From functions through all rows they find out whether it is.
                near = fitted({}, None, Exact(restarts=0), 0).fitted
                fresh = fitted(matched, near, methods["full"], MOST_RUNS + 1).fitted
                second, its_check, more = settled(fresh, again)
                if (noise_level(second) or 0.0) < (noise_level(draws) or 0.0):
                    draws, check = second, its_check
                runs += 1 + more
            model = model.with_draws(draws) if runs else model
            if settings.warn:
                warn_if_untrusted(draws)
        found = findings(
            model.fitted,
            check,
            runs,
            y_scale=y_scale[1],
            default_noise=default_noise,
        )
        return replace(
            self,
            model=model,
            y_scale=y_scale,
            tuned_at=len(clipped) if cold or runs >= ANEW else self.tuned_at,
            moved=moved,
            names=names,
            findings=found,
            told=found.tell(self.told),
        )

    def _start(self, cold: bool) -> Any:
        """The last posterior; without its chains' tuning where that has to be done anew."""
        last = self.posterior
        if not isinstance(last, FunctionDraws):
            return None  # exact inference has no chains
        return replace(last, states=()) if cold else last


def check_bounds(bounds: Any, known: Names | None = None) -> np.ndarray:
    """Bounds as a float matrix (2, d) with low < high, or `InputError`."""
    matrix = as_matrix(bounds, "bounds", known=known)
    if matrix.shape[0] != 2:
        hint = " Transpose it." if matrix.shape[1] == 2 else ""
        raise InputError(
            f"bounds must be 2 x d (lower and upper bounds), got {matrix.shape}.{hint}"
        )
    if not (matrix[0] < matrix[1]).all():
        column = int(np.argmin(matrix[0] < matrix[1]))
        raise InputError(
            f"bounds of column {column}: low must be below high, got {matrix[:, column].tolist()}."
        )
    return matrix


def _warmed_up(method: Any) -> dict[str, Any]:
    """The method with all of its warm-up, that of chains which are tuned already, and none."""
    if not hasattr(method, "warmup"):
        return dict.fromkeys(("full", "short", "none"), method)
    steps = {"full": method.warmup, "short": round(method.warmup * WARM_PART), "none": 0}
    return {how: replace(method, warmup=count) for how, count in steps.items()}
