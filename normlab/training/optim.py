"""How weights move: optimizer, learning rates, proximal step; of one network by torch, of K networks row by row."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from normlab.nets.penalty import adamw_scale, proximal_threshold, soft_threshold_
from normlab.settings import Settings

FLOOR = 1 / 250_000  # of the highest learning rate, at the last step


def make_optimizer(parameters: Iterable[nn.Parameter], settings: Settings) -> SGD | AdamW:
    """Return torch's optimizer for `settings.optimizer`, at the learning rate `settings.peak_lr`."""
    chosen, parameters = settings.optimizer, [*parameters]
    if chosen.name == "adamw":
        # float16 cannot hold an ε of 1e-8: a weight without a gradient would get 0 / 0
        smallest = max(torch.finfo(parameter.dtype).tiny for parameter in parameters)
        betas = (chosen.betas[0], chosen.betas[1])
        return AdamW(parameters, settings.peak_lr, betas, max(chosen.eps, smallest), chosen.weight_decay)
    nesterov = chosen.momentum > 0
    return SGD(parameters, settings.peak_lr, chosen.momentum, weight_decay=chosen.weight_decay, nesterov=nesterov)


def make_schedule(optimizer: torch.optim.Optimizer, schedule: str, total_steps: int) -> OneCycleLR | None:
    """Return the schedule over so many steps; None where the learning rate stays what it is.

    "onecycle" (Smith & Topin 2019, "Super-Convergence") warms up for 30 % of the steps from lr/25 to lr and falls on a
    cosine to lr/250,000. A single step has neither a way up nor one down: it is taken at lr.
    """
    if schedule == "constant" or total_steps == 1:
        return None
    # cycle_momentum: `momentum` and `betas` are what they say, throughout
    return OneCycleLR(optimizer, optimizer.param_groups[0]["lr"], total_steps, cycle_momentum=False)


def onecycle(step: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """Return the learning rate at a step, from 0, of "onecycle" over so many, as a share of the highest: what torch's
    `OneCycleLR` gives, for many networks at once and without a list of all steps. It is 1 where there is one step."""
    top = 0.3 * steps - 1
    rises = step <= top
    way = torch.where(rises, 1 - step / top, (step - top) / (steps - 1 - top))  # from the highest rate: 0 to 1
    low = torch.where(rises, torch.full_like(way, 1 / 25), FLOOR)
    return torch.where(steps == 1, 1.0, low + (1 - low) * (1 + torch.cos(math.pi * way)) / 2)


def proximal_step_(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], l1: float) -> None:
    """Take the proximal step of l1·Σ|w| that belongs to the step `optimizer` has just taken, in place.

    The threshold after SGD is `proximal_threshold`. AdamW divides its step by `adamw_scale`, coordinate by coordinate,
    and so is its threshold: lr·l1 / (√v̂ + ε) (Yun, Lozano & Yang 2021, "Adaptive Proximal Gradient Methods for
    Structured Neural Networks", algorithm 1). It takes no 1 / (1 - β₁): AdamW averages gradients where SGD sums them.
    Without weight decay, training rests where 0 ∈ ∇loss + l1·∂|w|, whatever the optimizer.
    """
    group = optimizer.param_groups[0]
    for parameter in parameters:
        if "betas" not in group:
            soft_threshold_([parameter], proximal_threshold(group["lr"], l1, group["momentum"]))
        elif state := optimizer.state.get(parameter):  # one that has had no gradient has not been stepped either
            scale = adamw_scale(state["exp_avg_sq"], state["step"], group["betas"][1], group["eps"])
            soft_threshold_([parameter], group["lr"] * l1 / scale)


class StackedOptimizer(Optimizer):
    """The optimizers of K networks as one, each row as torch's own would update it (in the manner of HFTA: Wang et al.
    2021, "Horizontally Fused Training Array"). It never asks a device for a value.

    Its one parameter is (K, P), and so is its state, by torch's names: "momentum_buffer" if a row is SGD's; "exp_avg",
    "exp_avg_sq" if one is AdamW's, and "step", (1,). The numbers of a row under another optimizer's names mean nothing.

    Args:
        settings: of each run. optimizers: torch's own, as each network would have it alone, over so many steps.
        covered, frozen: bool (K, P): whether the penalty covers a number, whether nothing moves it.
        parameters, grads: (K, P), on the device and in the precision of the steps. grads holds the gradients of the
            loss without its penalty whenever `step` is called.
    """

    def __init__(
        self,
        settings: Sequence[Settings],
        optimizers: Sequence[SGD | AdamW],
        steps: int,
        covered: torch.Tensor,
        frozen: torch.Tensor,
        parameters: torch.Tensor,
        grads: torch.Tensor,
    ) -> None:
        def column(values: Iterable[float], dtype: torch.dtype = parameters.dtype) -> torch.Tensor:
            return torch.tensor([*values], dtype=dtype, device=parameters.device)[:, None]

        # where a row's optimizer has no momentum, β or ε, any value
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        betas = [*zip(*(group.get("betas", (0.0, 0.0)) for group in groups), strict=True)]
        self.momentum = column(group.get("momentum", 0.0) for group in groups)
        self.betas = [column(each) for each in betas]
        self.eps = column(group.get("eps", 1.0) for group in groups)
        self.clip = column(math.inf if each.gradient_clip is None else each.gradient_clip for each in settings)
        self.l1 = column(each.l1 for each in settings)
        # in float64: 1 - β₂ᵗ loses half of float32's digits at the first steps, and float32 cannot count many steps
        self.beta1, self.beta2 = (column(each, torch.float64) for each in betas)
        self.peak = column((each.peak_lr for each in settings), torch.float64)
        self.cycle = column((1 if each.schedule == "constant" else steps for each in settings), torch.float64)
        self.adamw = column(("betas" in group for group in groups), torch.bool)
        self.some_sgd, self.some_adamw = not bool(self.adamw.all()), bool(self.adamw.any())
        self.some_l1 = bool(self.l1.any())
        self.frozen = frozen.to(parameters.device) if frozen.any() else None
        self.covered, moves = covered.to(parameters), (~frozen).to(parameters)
        proximal = column(each.penalty.method == "proximal" for each in settings)
        self.pull, self.shrinks = self.l1 * (1 - proximal) * self.covered * moves, proximal * self.covered * moves
        self.weight_decay = column(group["weight_decay"] for group in groups) * moves
        self.none = parameters.new_zeros(())
        self.matrix = nn.Parameter(parameters)  # of the same memory
        self.matrix.grad = grads
        super().__init__([self.matrix], {"capturable": True})  # torch then keeps "step" on the device
        names = ["momentum_buffer"] * self.some_sgd + ["exp_avg", "exp_avg_sq"] * self.some_adamw
        self.state[self.matrix] = {name: torch.zeros_like(parameters) for name in names}
        self.state[self.matrix]["step"] = torch.zeros(1, device=parameters.device)  # of those taken

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step in place.

        1. g ← g + λ·sign(w) (subgradient); g ← g · min(1, clip / ‖g‖).
        2. SGD: g ← g + decay·w; v ← momentum·v + g; w ← w - lr·(g + momentum·v).
           AdamW: w ← (1 - lr·decay)·w; m ← β₁·m + (1 - β₁)·g; v ← β₂·v + (1 - β₂)·g²; w ← w - lr·m̂ / (√v̂ + ε).
        3. w ← sign(w)·max(|w| - t, 0), t as in `proximal_step_` (proximal).
        """
        result = None if closure is None else closure()
        state, parameters, grads = self.state[self.matrix], self.matrix, self.matrix.grad
        assert grads is not None
        lr = self.lr(state["step"])
        if self.frozen is not None:
            grads.masked_fill_(self.frozen, 0.0)
        if self.some_l1:
            grads.addcmul_(self.pull, parameters.sign())
        length = torch.linalg.vector_norm(grads, dim=1, keepdim=True)
        grads.mul_((self.clip / (length + 1e-6)).clamp_(max=1))  # 1e-6: as torch.nn.utils.clip_grad_norm_
        move = threshold = self.none
        if self.some_sgd:
            velocity = state["momentum_buffer"]
            decayed = torch.addcmul(grads, self.weight_decay, parameters)
            velocity.mul_(self.momentum).add_(decayed)
            move = lr * torch.addcmul(decayed, self.momentum, velocity)
            if self.some_l1:
                threshold = proximal_threshold(lr, self.l1, self.momentum)
        if self.some_adamw:
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            beta1, beta2 = self.betas
            mean.lerp_(grads, 1 - beta1)
            square.mul_(beta2).addcmul_(1 - beta2, grads.square())
            taken = state["step"].double() + 1
            scale = adamw_scale(square, taken, self.beta2, self.eps)
            corrected = (1 - self.beta1**taken).to(lr.dtype)
            move_adamw = torch.addcmul(lr / corrected * (mean / scale), lr * self.weight_decay, parameters)
            move = torch.where(self.adamw, move_adamw, move)
            if self.some_l1:
                threshold = torch.where(self.adamw, lr * self.l1 / scale, threshold)
        parameters.sub_(move)
        if self.some_l1:
            threshold = threshold * self.shrinks
            parameters.sub_(torch.clamp(parameters, -threshold, threshold))
        state["step"] += 1
        return result

    def lr(self, step: torch.Tensor) -> torch.Tensor:
        """Return the learning rates at a step, from 0: (K, 1)."""
        lr: torch.Tensor = self.peak * onecycle(step.double(), self.cycle)
        return lr.to(self.matrix.dtype)

    def penalty(self) -> torch.Tensor:
        """Return λ·Σ|w| of each network: float64 (K,)."""
        if not self.some_l1:
            return torch.zeros(len(self.matrix), dtype=torch.float64, device=self.matrix.device)
        return self.l1.view(-1) * self.matrix.detach().abs().mul_(self.covered).sum(1, dtype=torch.float64)
