"""K networks trained as one computation: their data, their step, their metrics. Knows neither Lightning nor files.

Every network has its own weights, order of images, augmentation, dropout masks, learning rate, momentum, weight decay
and penalty. A step holds device tensors only and never asks the device for a value, so that a GPU can replay it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import EVAL_BATCH, ImageData, epoch_draws, epoch_order
from normlab.nets import Network
from normlab.nets.dropout import Dropout, keep_mask
from normlab.nets.folded import Numbers, fold, log_probs
from normlab.nets.stack import Stack
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.training.graph import Replayed
from normlab.training.optim import Rates, Rows

__all__ = ["Engine", "EpochResult"]


@dataclass(frozen=True)
class EpochResult:
    """What an epoch of training measured: (K,), a mean over each network's images (ce, acc) or steps (penalty)."""

    ce: torch.Tensor
    acc: torch.Tensor
    penalty: torch.Tensor


class Engine:
    """Trains K networks that share a shape, a batch size and a number of training images.

    Args:
        nets: with their initial weights. settings, data: of each; the pool of images is the same one for all.
        rates: how each is updated.
        device: where. at_once: how many networks share one forward pass; the others follow in the same step.
    """

    def __init__(
        self,
        nets: Sequence[Network],
        settings: Sequence[Settings],
        data: Sequence[ImageData],
        rates: Rates,
        *,
        device: torch.device,
        at_once: int,
    ) -> None:
        common = settings[0]
        self.device, self.settings, self.data = device, settings, data
        self.precision = common.precision
        dtype = torch.float64 if common.precision == "64-true" else torch.float32
        self.stack = Stack([net.to(dtype) for net in nets], device)
        # dropout has no numbers of its own: of the networks with and without it, one with it serves all
        self.net = next((n for n in nets if any(isinstance(m, Dropout) for m in n.modules())), nets[0])
        self.rows = Rows(rates, self.stack.parameters)
        self.chunks = [(low, min(low + at_once, len(nets))) for low in range(0, len(nets), at_once)]
        self.eval_at_once = max(1, at_once * common.batch_size // EVAL_BATCH)
        self.batch_size, self.size = common.batch_size, len(data[0].train)
        self.rotation, self.shift = common.augment.rotation, common.augment.shift
        self.pools = {
            part: tuple(values.to(device) for values in getattr(data[0], part).pool) for part in ("train", "test")
        }
        self.mean = torch.tensor([d.mean for d in data], dtype=dtype, device=device).view(-1, 1, 1, 1, 1)
        self.std = torch.tensor([d.std for d in data], dtype=dtype, device=device).view(-1, 1, 1, 1, 1)
        count = len(nets)
        self.order = torch.zeros(count, self.size, dtype=torch.int64, device=device)
        self.draws = torch.zeros(count, self.size, 3, dtype=dtype, device=device)
        self.grads = torch.zeros_like(self.stack.parameters)
        self.step = torch.zeros(1, dtype=torch.int64, device=device)  # of all steps
        self.seen = torch.zeros(1, dtype=torch.int64, device=device)  # images of this epoch
        self.correct = torch.zeros(count, dtype=torch.int64, device=device)
        self.ce, self.penalty = (torch.zeros(count, dtype=torch.float64, device=device) for _ in range(2))
        self.generators = [torch.Generator() for _ in nets] if device.type == "cpu" else [None] * count
        full, rest = divmod(self.size, self.batch_size)
        state = [*self._state()]
        self.steps: list[tuple[Replayed, int]] = []  # what an epoch does, and how often
        for size, times in ((self.batch_size, full), (rest, 1)):
            if size and times:
                self.steps.append((Replayed(self._one(size), state, device), times))

    def _kept(self) -> Iterator[tuple[str, torch.Tensor]]:
        """What the next epoch needs of those before it, by name."""
        yield "parameters", self.stack.parameters
        yield "step", self.step
        yield from ((f"optimizer.{name}", values) for name, values in self.rows.state.items())
        yield from ((f"buffers.{name}", values) for name, values in self.stack.buffers.items())

    def _state(self) -> Iterator[torch.Tensor]:
        """All that a step changes."""
        yield from (values for _, values in self._kept())
        yield from (self.grads, self.seen, self.correct, self.ce, self.penalty)

    def state(self) -> dict[str, torch.Tensor]:
        """Return a copy, on the CPU, of what the next epoch needs of those before it."""
        return {name: values.detach().cpu().clone() for name, values in self._kept()}

    @torch.no_grad()
    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Resume from a `state`, in place."""
        for name, values in self._kept():
            values.copy_(state[name])

    def optimizer_state(self, index: int) -> dict[str, dict[str, torch.Tensor]]:
        """Return what torch's optimizer of one network would hold, by its parameters' names."""
        state: dict[str, dict[str, torch.Tensor]] = {}
        for key, values in self.rows.of(index, int(self.step)).items():
            row = values.cpu()[None]
            named = self.stack.named(row) if values.dim() else dict.fromkeys(self.stack.shapes, row)
            for name, value in named.items():
                state.setdefault(name, {})[key] = value[0].clone()
        return state

    def _one(self, size: int) -> Callable[[], None]:
        return lambda: self.train_step(size)

    @property
    def steps_an_epoch(self) -> int:
        return sum(times for _, times in self.steps)

    @property
    def not_replayed(self) -> str | None:
        """Why the steps are not replayed as a CUDA graph; None where they are, or where there is no GPU."""
        return next((step.reason for step, _ in self.steps if step.reason), None)

    def begin_epoch(self, epoch: int) -> None:
        """Brings the order of images, the augmentation and the dropout streams of an epoch (from 0)."""
        for index, (settings, data) in enumerate(zip(self.settings, self.data, strict=True)):
            order = data.train.where[epoch_order(self.size, settings.seed, epoch)]
            self.order[index].copy_(order, non_blocking=True)
            if self.rotation or self.shift:
                self.draws[index].copy_(epoch_draws(self.size, settings.seed, epoch), non_blocking=True)
            if (stream := self.generators[index]) is not None:
                stream.manual_seed(stream_seed(Stream.DROPOUT, settings.seed, epoch))
        if self.device.type != "cpu":  # one stream for all: a run's masks then depend on its place in the array
            torch.manual_seed(stream_seed(Stream.DROPOUT, self.settings[0].seed, epoch))
        for total in (self.seen, self.correct, self.ce, self.penalty):
            total.zero_()

    def train_epoch(self) -> EpochResult:
        """Goes through the training images once, and waits for the end."""
        for step, times in self.steps:
            for _ in range(times):
                step()
        ce, acc, penalty = self.ce / self.size, self.correct / self.size, self.penalty / self.steps_an_epoch
        return EpochResult(ce=ce.cpu(), acc=acc.cpu(), penalty=penalty.cpu())

    def train_step(self, size: int) -> None:
        """One batch of every network: the next `size` images of its order."""
        pick = self.seen + torch.arange(size, device=self.device)
        for low, high in self.chunks:
            images, labels = self._batch(low, high, pick)
            leaf = self.stack.parameters[low:high].detach().requires_grad_()
            numbers = Numbers(self.stack.named(leaf), {k: v[low:high] for k, v in self.stack.buffers.items()})
            with self._autocast():
                found = log_probs(self.net, numbers, images, training=True, masks=self._masks(low, high))
                ce = F.nll_loss(found.flatten(0, 1), labels.flatten(), reduction="none").view(high - low, -1).mean(1)
            self.grads[low:high] = torch.autograd.grad(ce.sum(), leaf)[0]
            self.correct[low:high] += (found.detach().argmax(2) == labels).sum(1)
            self.ce[low:high] += ce.detach().double() * size
        rates = self.rows.rates
        self.penalty += rates.l1.view(-1) * self.stack.parameters.abs().mul_(rates.covered).sum(1, dtype=torch.float64)
        self.rows.step_(self.stack.parameters, self.grads, self.step)
        self.step += 1
        self.seen += size

    def _batch(self, low: int, high: int, pick: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (k, B, 1, 28, 28), augmented and normalised, and labels (k, B)."""
        images, labels = self.pools["train"]
        where = self.order[low:high].index_select(1, pick)
        pixels = images[where].to(self.mean.dtype) / 255
        if self.rotation or self.shift:
            draws = self.draws[low:high].index_select(1, pick).flatten(0, 1)
            moved = rotate_and_shift(pixels.flatten(0, 1), draws, rotation=self.rotation, shift=self.shift)
            pixels = moved.view_as(pixels)
        return (pixels - self.mean[low:high]) / self.std[low:high], labels[where]

    def _masks(self, low: int, high: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Dropout masks of some networks, each from its own stream, as the network alone would draw them."""
        rates = [settings.dropout for settings in self.settings[low:high]]
        if not any(rates):
            return None

        def masks(maps: torch.Tensor) -> torch.Tensor:
            batch, channels, height, width = maps.shape
            shape = torch.Size((batch, channels // (high - low), height, width))
            drawn = [
                keep_mask(shape, rate, maps, stream) if rate else maps.new_ones(shape)
                for rate, stream in zip(rates, self.generators[low:high], strict=True)
            ]
            return fold(torch.stack(drawn))

        return masks

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        if self.precision == "bf16-mixed":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @torch.no_grad()
    def evaluate(self, part: str) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield each network's index and log-probabilities (N, 10) of "train", "val" or "test", in file order and eval
        mode, on the CPU."""
        images, _ = self.pools["test" if part == "test" else "train"]
        for low in range(0, len(self.stack), self.eval_at_once):
            high = min(low + self.eval_at_once, len(self.stack))
            numbers = Numbers(
                self.stack.named(self.stack.parameters[low:high]),
                {name: values[low:high] for name, values in self.stack.buffers.items()},
            )
            where = torch.stack([getattr(data, part).where for data in self.data[low:high]]).to(self.device)
            batches = []
            for picked in torch.split(where, EVAL_BATCH, dim=1):
                pixels = images[picked].to(self.mean.dtype) / 255
                with self._autocast():
                    normal = (pixels - self.mean[low:high]) / self.std[low:high]
                    batches.append(log_probs(self.net, numbers, normal, training=False).float())
            yield from enumerate(torch.cat(batches, 1).cpu(), start=low)
