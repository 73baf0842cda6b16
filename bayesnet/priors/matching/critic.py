"""Wasserstein distance in its dual form: a Lipschitz critic learns where the laws differ."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from bayesnet._errors import InputError, unknown_name
from bayesnet._types import Array, Float, Key, PyTree

CONSTRAINTS = ("one_sided", "two_sided", "clip")


@dataclass(frozen=True)
class Critic:
    """Tran et al. 2022 (JMLR 23:74), eq. 13 and 14: `max_phi E phi(g) - E phi(f)`.

    The critic is a softplus MLP of the vector of function values, held near Lipschitz constant 1.
    It goes on from where the last step left it, so a few steps suffice: the prior moves little
    between steps, and so does the best critic.

    Args:
        constraint: how it is held. "one_sided" punishes gradients above norm 1 at random points
            between the two sets of draws (Petzka et al. 2018, eq. 8); "two_sided" also those
            below (Gulrajani et al. 2017, eq. 3; what Tran et al. use), which is a wall at slope
            0, behind which a critic that starts with the wrong sign stays (seen in one
            dimension); "clip" keeps all weights in [-clip, clip] (Arjovsky et al. 2017,
            algorithm 1), which bounds the constant but leaves it unknown: distances are then
            in no fixed unit.
        hidden: widths of the critic.
        steps: critic steps a step of the prior.
        first_steps: critic steps before the first step of the prior, which must not follow a
            critic that knows nothing yet.
        learning_rate: of the critic's Adam.
        penalty: weight of the gradient penalty (lambda of eq. 14).
        clip: the bound of "clip".

    Raises:
        InputError: an unknown constraint, or a clip that is not positive.
    """

    hidden: tuple[int, ...] = (200, 200)
    steps: int = 5
    first_steps: int = 200
    learning_rate: float = 3e-3
    penalty: float = 10.0
    constraint: str = "one_sided"
    clip: float = 0.1

    def __post_init__(self) -> None:
        if self.constraint not in CONSTRAINTS:
            raise unknown_name("constraint", self.constraint, CONSTRAINTS)
        if not 0.0 < self.clip < float("inf"):
            raise InputError(f"clip must be positive and finite, got {self.clip!r}.")

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.learning_rate, b1=0.5, b2=0.9)

    def start(self, key: Key, num_values: int) -> PyTree:
        sizes = (num_values, *self.hidden, 1)
        layers = [
            {"w": jax.random.normal(k, (a, b)) / a**0.5, "b": jnp.zeros(b)}
            for k, a, b in zip(
                jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
            )
        ]
        layers = self.clipped(layers)
        return layers, self._optimizer.init(layers), jnp.int32(self.first_steps)

    def clipped(self, layers: PyTree) -> PyTree:
        """The critic with its weights (and biases) inside the bounds, if it has bounds."""
        if self.constraint != "clip":
            return layers
        return jax.tree.map(lambda a: jnp.clip(a, -self.clip, self.clip), layers)

    def adapt(self, state: PyTree, key: Key, f: Array, g: Array) -> PyTree:
        f, g = f.reshape(len(f), -1), g.reshape(len(g), -1)

        layers, moments, num_steps = state

        def step(i: Array, carry: PyTree) -> PyTree:
            layers, moments = carry
            gradient = jax.grad(self.dual_loss)(layers, jax.random.fold_in(key, i), f, g)
            updates, moments = self._optimizer.update(gradient, moments, layers)
            return self.clipped(optax.apply_updates(layers, updates)), moments

        layers, moments = jax.lax.fori_loop(0, num_steps, step, (layers, moments))
        return layers, moments, jnp.int32(self.steps)

    def dual_loss(
        self, layers: PyTree, key: Key, f: Float[Array, "s q"], g: Float[Array, "s q"]
    ) -> Float[Array, ""]:
        """What the critic minimises: minus the gap between the laws, plus the penalty."""
        if self.constraint == "clip":
            return self.gap(layers, g, f)
        between = jax.random.uniform(key, (len(f), 1))
        mixed = between * f + (1.0 - between) * g
        slopes = jax.vmap(jax.grad(lambda v: evaluate(layers, v)))(mixed)
        norm = jnp.sqrt(jnp.sum(slopes**2, axis=1) + 1e-12)
        excess = norm - 1.0
        if self.constraint == "one_sided":
            excess = jnp.maximum(excess, 0.0)
        return self.gap(layers, g, f) + self.penalty * jnp.mean(excess**2)

    @staticmethod
    def gap(layers: PyTree, f: Float[Array, "s q"], g: Float[Array, "s q"]) -> Float[Array, ""]:
        """`E phi(g) - E phi(f)`: the distance that this critic sees."""
        return jnp.mean(evaluate(layers, g)) - jnp.mean(evaluate(layers, f))

    def loss(
        self, state: PyTree, key: Key, f: Float[Array, "s 3k m"], g: Float[Array, "s 3k m"]
    ) -> Float[Array, ""]:
        return self.gap(state[0], f.reshape(len(f), -1), g.reshape(len(g), -1))


def evaluate(layers: PyTree, values: Float[Array, "*s q"]) -> Float[Array, "*s"]:
    """The critic phi at vectors of function values."""
    for layer in layers[:-1]:
        values = jax.nn.softplus(values @ layer["w"] + layer["b"])
    return (values @ layers[-1]["w"] + layers[-1]["b"])[..., 0]
