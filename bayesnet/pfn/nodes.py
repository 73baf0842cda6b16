"""Nodes of a quadrature over hyper-parameters, before and after a table conditions their processes."""

from __future__ import annotations

import equinox as eqx

from bayesnet._types import Array, Float


class Nodes(eqx.Module):
    """Hyper-parameters of p kinds of processes at n nodes each.

    `log_share` (p, n): log weights without prior density and evidence; `z` (p, n, k): latents in the
    slots of the family; `odds` (p, n, d): log odds that a column has an effect; `std` (p, n, k): how far the reader is
    from sure of the latents; `told` (w,): what the reader says of the table.
    """

    log_share: Float[Array, "p n"]
    z: Float[Array, "p n k"]
    odds: Float[Array, "p n d"]
    std: Float[Array, "p n k"]
    told: Float[Array, " w"]


class Conditioned(eqx.Module):
    """What a table leaves behind: nodes with their weights, and the solved covariances.

    `log_weight` (p, n), normalised; `z` (p, n, k) and `gates` (p, n, d): the nodes; `solved`
    (p, n, r): the inverse covariance of the rows times y; `root` (p, n, r, r): the inverse of its
    Cholesky factor; `x` (r, d): the rows. `log_evidence`: of the table, as far as the nodes tell, and up to
    a constant that depends on the number of rows alone.
    """

    log_weight: Float[Array, "p n"]
    z: Float[Array, "p n k"]
    gates: Float[Array, "p n d"]
    solved: Float[Array, "p n r"]
    root: Float[Array, "p n r r"]
    x: Float[Array, "r d"]
    log_evidence: Float[Array, ""]
