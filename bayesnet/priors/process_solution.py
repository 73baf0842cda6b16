"""A Gaussian process, or a scale mixture of them, given a table: the linear algebra, in float64.

The model of one output is `f = mean + sqrt(s) g`, g ~ GP(0, K), and `y = f + e`:

- noise "inside": e ~ N(0, s D), so that `y | s ~ N(mean, s C)` with `C = K + D`: one Cholesky
  factor serves every s. A Gaussian process is s = 1; with `s ~ InverseGamma(a, b)` all is Student-t
  (Shah, Wilson & Ghahramani 2014, lemma 3; Lee et al. 2022, theorem 4.1).
- noise "outside": e ~ N(0, D), so that `y | s ~ N(mean, s K + D)`: the eigenvectors of
  `D^-1/2 K D^-1/2` serve every s, at O(n) a node.

Outputs that share observed rows and noise share a block. Everything is NumPy and in the prior's
coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg
from scipy.special import gammaln, logsumexp

from bayesnet.priors.process_blocks import LOG_2PI, Block, make_blocks
from bayesnet.priors.scale_quadrature import ScaleNodes, scale_nodes
from bayesnet.priors.variance_laws import InverseGamma, PointMass, log_density_of, tail_of


@dataclass(frozen=True)
class ScaleModel:
    """How a scale enters: its law (None: s = 1), where the noise is, one for all outputs or each."""

    law: Any = None
    noise: str = "inside"
    per_output: bool = False
    tolerance: float = 1e-6
    num_samples: int | None = None
    seed: int = 0

    @property
    def closed_form(self) -> bool:
        """Whether the posterior is Student-t."""
        return isinstance(self.law, InverseGamma) and self.noise == "inside"


@dataclass(frozen=True, eq=False)
class Solution:
    """The law of the scale and the factorised blocks: all that predictions need.

    Attributes:
        u: (j, g) logs of the scales, g = 1 or one for each output; log_weight: (j, g).
        df: (g,) degrees of freedom where all is Student-t, else None.
        tail: (g,) P(s > t | y) ~ t^-tail: moments of order `tail` and beyond are infinite.
        log_evidence: of the residuals, in nats.
        error: of the quadrature (see `ScaleNodes`); rule: its name.
    """

    blocks: tuple[Block, ...]
    scale: ScaleModel
    num_outputs: int
    u: np.ndarray
    log_weight: np.ndarray
    df: np.ndarray | None
    tail: np.ndarray
    log_evidence: float
    error: float
    rule: str

    @property
    def jitter(self) -> float:
        """The largest jitter that was needed, relative to the mean variance."""
        return max((b.jitter for b in self.blocks), default=0.0)

    def group(self, column: int) -> int:
        """The scale of an output."""
        return column if self.scale.per_output and self.scale.law is not None else 0

    def inverse_scale(self, column: int) -> np.ndarray:
        """Node weights times 1/s, whose sum is E[1/s | y], (j,)."""
        g = self.group(column)
        # Where all is Student-t the node is b_n / a_n, and E[1/s | y] = a_n / b_n as it is.
        return np.exp(self.log_weight[:, g] - self.u[:, g])

    def moments(self, cross: np.ndarray, diagonal: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Residual mean (j, k, m) and variance (j, k, m) of f at k rows, for every node."""
        j, k, m = len(self.u), len(cross), self.num_outputs
        mean, variance = np.empty((j, k, m)), np.empty((j, k, m))
        for block in self.blocks:
            part = cross[:, block.rows]
            if block.eigenvalues is None:
                left = np.maximum(diagonal - block.explained(part), 0.0)
                centre = part @ block.weights
            else:
                rotated = part @ block._root()
            for i, column in enumerate(block.columns):
                s = np.exp(self.u[:, self.group(column)])
                if block.eigenvalues is None:
                    mean[:, :, column] = centre[:, i]
                    variance[:, :, column] = s[:, None] * left
                    continue
                gain = 1.0 / (s[:, None] * block.eigenvalues + 1.0)
                mean[:, :, column] = s[:, None] * ((gain * block.weights[:, i]) @ rotated.T)
                shrink = s[:, None] * (gain @ (rotated**2).T)
                variance[:, :, column] = s[:, None] * np.maximum(diagonal - shrink, 0.0)
        return mean, variance

    def covariance(self, cross: np.ndarray, full: np.ndarray, node: int, column: int) -> np.ndarray:
        """The covariance (k, k) of f at k rows for one node and output."""
        block = next(b for b in self.blocks if column in b.columns)
        part = cross[:, block.rows]
        s = float(np.exp(self.u[node, self.group(column)]))
        if block.eigenvalues is None:
            return s * (full - block.explained_matrix(part))
        rotated = part @ block._root()
        gain = s / (s * block.eigenvalues + 1.0)
        return s * (full - (rotated * gain) @ rotated.T)


def solve(
    matrix: np.ndarray, noise: np.ndarray, residual: np.ndarray, scale: ScaleModel
) -> Solution:
    """Condition on residuals (n, m) (NaN: missing) under noise variances (n, m)."""
    outside = scale.law is not None and scale.noise == "outside"
    return solution_of(make_blocks(matrix, noise, residual, outside), residual.shape[1], scale)


def solution_of(blocks: tuple[Block, ...], m: int, scale: ScaleModel) -> Solution:
    """The law of the scale of `m` outputs, from factorised blocks."""
    if scale.law is None:
        evidence = sum(float(b.log_likelihood(np.zeros(1)).sum()) for b in blocks)
        one = np.zeros((1, 1))
        return Solution(
            blocks, scale, m, one, one, None, np.array([np.inf]), evidence, 0.0, "exact"
        )
    groups = [[j] for j in range(m)] if scale.per_output else [list(range(m))]
    laws = [_posterior_scale(blocks, columns, scale) for columns in groups]
    width = max(len(nodes.u) for nodes, _ in laws)
    u, weight = np.zeros((width, len(laws))), np.full((width, len(laws)), -np.inf)
    for g, (nodes, _) in enumerate(laws):
        u[:, g] = nodes.u[0]
        u[: len(nodes.u), g], weight[: len(nodes.u), g] = nodes.u, nodes.log_weight
    return Solution(
        blocks,
        scale,
        m,
        u,
        weight,
        np.array([2.0 * tail for _, tail in laws]) if scale.closed_form else None,
        np.array([tail for _, tail in laws]),
        float(sum(nodes.log_evidence for nodes, _ in laws)),
        max(nodes.error for nodes, _ in laws),
        laws[0][0].rule,
    )


def _posterior_scale(
    blocks: tuple[Block, ...], columns: list[int], scale: ScaleModel
) -> tuple[ScaleNodes, float]:
    """The scale shared by `columns`: nodes, and the tail of its posterior."""
    members = [(b, [i for i, c in enumerate(b.columns) if c in columns]) for b in blocks]
    count = sum(len(b.rows) * len(own) for b, own in members)
    if scale.closed_form:
        quadratic = sum(float(b.quadratic[own].sum()) for b, own in members)
        log_det = sum(b.log_det * len(own) for b, own in members)
        a, b_n = scale.law.a + 0.5 * count, scale.law.b + 0.5 * quadratic
        evidence = student_t_log_evidence(scale.law, count, quadratic, log_det)
        u = np.array([np.log(b_n) - np.log(a)])
        return ScaleNodes(u, np.zeros(1), evidence, 0.0, "closed form"), a

    def log_likelihood(u: np.ndarray) -> np.ndarray:
        total = np.zeros(len(u))
        for block, own in members:
            if own:
                total += block.log_likelihood(u)[:, own].sum(axis=1)
        return total

    if isinstance(scale.law, PointMass):
        u = np.array([np.log(scale.law.value)])
        known = float(log_likelihood(u)[0])
        return ScaleNodes(u, np.zeros(1), known, 0.0, "point mass"), float("inf")
    rank = sum(b.rank * len(own) for b, own in members)
    tail = tail_of(scale.law) + 0.5 * rank
    if scale.num_samples is not None:
        return _importance(log_likelihood, scale), tail

    def log_joint(u: np.ndarray) -> np.ndarray:
        return log_likelihood(u) + log_density_of(scale.law, u)

    return scale_nodes(log_joint, scale.tolerance, tail), tail


def _importance(log_likelihood: Any, scale: ScaleModel) -> ScaleNodes:
    """Draws of the law weighted by the likelihood (Lee et al. 2022, section 4.2)."""
    import jax

    num = int(scale.num_samples or 0)
    drawn = np.asarray(scale.law.sample(jax.random.key(scale.seed), (num,)), np.float64)
    u = np.log(np.maximum(drawn, 1e-300))
    terms = log_likelihood(u)
    total = float(logsumexp(terms))
    weights = np.exp(terms - terms.max())
    error = float(weights.std(ddof=1) / weights.mean() / np.sqrt(num))
    keep = terms - total > -45.0
    kept = terms[keep] - logsumexp(terms[keep])
    return ScaleNodes(u[keep], kept, total - np.log(num), error, "importance")


def student_t_log_evidence(law: InverseGamma, count: float, quadratic: Any, log_det: Any) -> Any:
    """The log density of `count` values under a multivariate t: 2a degrees of freedom, scale
    (b/a) C, from `r' C^-1 r` and log det C."""
    a, b = law.a, law.b
    return (
        gammaln(a + 0.5 * count)
        - gammaln(a)
        - 0.5 * count * LOG_2PI
        + a * np.log(b)
        - (a + 0.5 * count) * np.log(b + 0.5 * quadratic)
        - 0.5 * log_det
    )


def evidence_gradient(solution: Solution, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gradient of the log evidence in the matrix (n, n), noise variances and residuals (n, m).

    With a random scale it is the posterior mean of the gradient given the scale (Fisher's identity).
    """
    m = solution.num_outputs
    by_matrix, by_noise, by_residual = (
        np.zeros((size, size)),
        np.zeros((size, m)),
        np.zeros((size, m)),
    )
    for block in solution.blocks:
        rows = block.rows
        n = len(rows)
        inner = np.zeros((n, n))
        if block.eigenvalues is None:
            inverse = linalg.cho_solve((block.factor, True), np.eye(n))
            for i, column in enumerate(block.columns):
                expected = float(solution.inverse_scale(column).sum())
                alpha = block.weights[:, i]
                inner += 0.5 * (expected * np.outer(alpha, alpha) - inverse)
                by_noise[rows, column] = 0.5 * (expected * alpha**2 - np.diag(inverse))
                by_residual[rows, column] = -expected * alpha
        else:
            root = block._root()
            for i, column in enumerate(block.columns):
                g = solution.group(column)
                weight = np.exp(solution.log_weight[:, g])
                s = np.exp(solution.u[:, g])
                gain = 1.0 / (s[:, None] * block.eigenvalues + 1.0)
                alpha = (gain * block.weights[:, i]) @ root.T  # (j, n)
                inner += 0.5 * np.einsum("j,jn,jk->nk", weight * s, alpha, alpha, optimize=True)
                inner -= 0.5 * (root * ((weight * s) @ gain)) @ root.T
                by_noise[rows, column] = 0.5 * (weight @ alpha**2 - (root**2) @ (weight @ gain))
                by_residual[rows, column] = -(weight @ alpha)
        by_matrix[np.ix_(rows, rows)] += inner
    return by_matrix, by_noise, by_residual
