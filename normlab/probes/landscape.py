"""The loss along the gradient: Santurkar et al. 2018, "How Does Batch Normalization Help Optimization?"."""

from collections.abc import Sequence
from dataclasses import dataclass

from normlab.probes.loss import Loss, Weights, distance, gradient, length

__all__ = ["LENGTHS", "Landscape", "along_gradient"]

LENGTHS = (0.5, 1.0, 2.0, 4.0)  # times the learning rate: the paper's range for VGG, [1/2, 4] (appendix A)


@dataclass(frozen=True)
class Landscape:
    """What is met on the way w - ηg from a point w, with g = ∇L(w): one value a step size η.

    Attributes:
        loss: L(w). gradient: ‖g‖₂.
        losses: L(w - ηg). changes: ‖∇L(w - ηg) - g‖₂. distances: η‖g‖₂, how far that is.
    """

    loss: float
    gradient: float
    losses: tuple[float, ...]
    changes: tuple[float, ...]
    distances: tuple[float, ...]

    @property
    def smoothness(self) -> float:
        """The effective β-smoothness: the largest ‖∇L(w - ηg) - g‖₂ / (η‖g‖₂). NaN where g is 0."""
        ratios = [change / far for change, far in zip(self.changes, self.distances, strict=True) if far]
        return max(ratios, key=lambda ratio: (ratio != ratio, ratio), default=float("nan"))  # a NaN is never hidden

    def quantities(self) -> dict[str, float]:
        """By name: the loss, its band and that of the gradient's change (least and largest over η), β, ‖g‖₂."""
        return {
            "loss": self.loss,
            "loss_min": min(self.losses),
            "loss_max": max(self.losses),
            "change_min": min(self.changes),
            "change_max": max(self.changes),
            "smoothness": self.smoothness,
            "gradient_norm": self.gradient,
        }


def along_gradient(loss: Loss, weights: Weights, steps: Sequence[float]) -> Landscape:
    """Loss and gradient along the gradient direction, on the batch that `loss` holds.

    The variation of the loss shows how Lipschitz it is, the change of the gradient how predictive it is, and their
    ratio to the distance how smooth the loss is: section 3.2, figure 4 of the paper.

    Args:
        loss: L, a function of all weights. weights: w. steps: the step sizes η > 0.
    """
    value, g = gradient(loss, weights)
    norm = length(g)
    losses, changes = [], []
    for step in steps:
        there = {name: values - step * g[name] for name, values in weights.items()}
        value_there, g_there = gradient(loss, there)
        losses.append(value_there)
        changes.append(distance(g_there, g))
    return Landscape(value, norm, tuple(losses), tuple(changes), tuple(step * norm for step in steps))
