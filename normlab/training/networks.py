"""K ≥ 1 networks of one shape as one LightningModule: a run is an array of one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule
from torch import nn

from normlab.data.datamodule import EVAL_BATCH, Batch, ImageData
from normlab.data.several import ArrayImages
from normlab.kernels import Gathered, Kernel, why_torch
from normlab.nets import Network
from normlab.nets.folded import Masks, Stack, StackedState, fold, log_probs
from normlab.nets.layers import Dropout, keep_mask
from normlab.randomness import Stream, stream_seed
from normlab.settings import Settings
from normlab.training.classifier import Classifier
from normlab.training.device import Replayed
from normlab.training.files import ResumePoint, RunFiles
from normlab.training.optim import StackedOptimizer


@dataclass(frozen=True)
class Member:
    """One run of an array.

    Attributes:
        model: with its initial weights. files: what it writes; None in a process beside the one that writes.
        before: where it resumes; None: it begins.
    """

    settings: Settings
    data: ImageData
    model: Classifier
    files: RunFiles | None = None
    before: ResumePoint | None = None

    @property
    def waits(self) -> bool:
        """Whether it has epochs to do."""
        return self.files is not None and not self.files.trained

    @property
    def epoch(self) -> int:
        """How many epochs are completed before."""
        return self.before.epoch if self.before else 0

    @property
    def finite(self) -> bool:
        """Whether its training has not diverged."""
        return self.files is not None and self.files.diverged is None


class NetworkArray(LightningModule):
    """K networks with a step that moves all of them: parameters (K, P), buffers (K, …), one optimizer of K rows.

    Every network has its own order of images, augmentation, dropout masks, learning rate, optimizer and penalty, from
    the streams that its seed has alone. Nothing of one network reaches another: one that diverges to nan leaves the
    others as they are.

    At most `at_once` networks share one forward and backward pass, as `normlab.nets.folded` does it; the passes follow
    one another within a step. A pass of one network is the network itself, whatever layers it has. A step holds device
    tensors only and never asks the device for a value, so that a GPU can replay it.

    Args:
        members: the runs; of their settings, what is not in `normlab.settings.arrays.FREE` is the same in all.
        data: other images than those that they train on.
        not_replayed: why a GPU must not replay the steps as a CUDA graph; None: it may.

    Attributes:
        not_replayed: why steps are not replayed, if there is a GPU; None if they are.
        kernel: what computes the steps on a CPU; None: torch does.
        share: the weight of this process's mean over its images in the mean over all processes.
        held_out: by part ("val", "test"): accuracies and cross-entropies (K,) after the last epoch.
    """

    def __init__(
        self,
        members: Sequence[Member],
        at_once: int = 1,
        not_replayed: str | None = None,
        data: ArrayImages | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # a backward pass for each forward pass of a step
        models = nn.ModuleList(member.model for member in members)
        self.models: Sequence[Classifier] = models  # type: ignore[assignment]  # nn.Module's are Any
        self.members, self.at_once, self.not_replayed = members, at_once, not_replayed
        self.settings = [member.settings for member in members]
        self.data = data or ArrayImages([member.data for member in members])
        self.kernel: Kernel | None = None
        self._seeds: list[int] = []  # of the kernels' dropout masks in this epoch
        self._step_of_epoch = 0
        self.share = 1.0
        self.held_out: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        # Dropout has no numbers of its own: of networks with and without it, one with it has the layers of all.
        self._layers_of = next((index for index, net in enumerate(self.nets) if _dropouts(net)), 0)
        self.passes = [(low, min(low + at_once, len(models))) for low in range(0, len(models), at_once)]
        self._steps: dict[int, Replayed] = {}
        self._generators: list[torch.Generator | None] = [None] * len(models)

    @property
    def nets(self) -> list[Network]:
        """The networks, whose weights are those of the last step."""
        return [model.net for model in self.models]

    # Training

    def on_fit_start(self) -> None:
        for model, data in zip(self.models, self.data.runs, strict=True):
            model.set_pixels(data.mean, data.std)
        self._take_kernels()

    def configure_optimizers(self) -> StackedOptimizer:
        """Put the parameters of all networks in one matrix, now that they have their device and precision."""
        self.stack = Stack(self.nets)
        self.stack.own(self.nets)
        steps = self.settings[0].steps_per_epoch(len(self.data.runs[0].train)) * self.settings[0].epochs
        covered, frozen = [], []
        for model in self.models:
            penalised, own = {id(parameter) for parameter in model.penalised}, [*model.net.parameters()]
            covered.append(Stack.row(torch.full_like(p, id(p) in penalised, dtype=torch.bool) for p in own))
            frozen.append(Stack.row(torch.full_like(p, not p.requires_grad, dtype=torch.bool) for p in own))
        optimizers = [model.optimizer(steps)[0] for model in self.models]
        self.stacked_optimizer = StackedOptimizer(
            self.settings, optimizers, steps, torch.stack(covered), torch.stack(frozen),
            self.stack.parameters, self.stack.grads,
        )  # fmt: skip
        device, networks = self.stack.parameters.device, len(self.models)
        self._leaves = []
        for low, high in self.passes:  # a pass accumulates the gradients of its rows in their place
            leaf = self.stack.parameters[low:high].detach().requires_grad_()
            leaf.grad = self.stack.grads[low:high]
            self._leaves.append(leaf)
        if networks > 1:
            self._generators = [torch.Generator(device) for _ in self.models]
            for net, generator in zip(self.nets, self._generators, strict=True):
                for layer in _dropouts(net):
                    layer.generator = generator
        zeros = torch.zeros(4, networks, dtype=torch.float64, device=device)
        self.penalty, self.totals = zeros[0], zeros[1:]  # of right answers, cross-entropy, images: (3, K)
        self._held_out = {part: torch.zeros_like(self.totals) for part in self.data.curves}
        self._steps.clear()
        return self.stacked_optimizer

    def _take_kernels(self) -> None:
        """Let the kernels compute on `stack`, where they can."""
        self.kernel = None
        if why_torch(self.settings[0], self.nets[0]) is None:
            mean, std = (torch.stack([getattr(each, of) for each in self.models]) for of in ("pixel_mean", "pixel_std"))
            rates = [settings.dropout for settings in self.settings]
            self.kernel = Kernel(self.nets, self.stack, mean, std, rates)  # type: ignore[arg-type]  # small ones
        self.data.gives_pixels = self.kernel is None

    def hold_masks(self, net: Network, images: int) -> None:
        """Give a copy of the first network the dropout masks of its next step, where the kernels draw them."""
        if self.kernel is not None and self._seeds:
            for name, mask in self.kernel.masks(0, images, seed=self._seeds[0], step=self._step_of_epoch).items():
                net.get_submodule(name).mask = mask

    def zero_grad(self, set_to_none: bool = False) -> None:  # Lightning's signature
        """Set gradients to zero in place: the optimizer holds these tensors."""
        super().zero_grad(set_to_none=False)

    def on_train_epoch_start(self) -> None:
        self._seeds, self._step_of_epoch = [], 0
        for settings, own in zip(self.settings, self._generators, strict=True):
            seed = stream_seed(Stream.DROPOUT, settings.seed, self.current_epoch, self.trainer.global_rank)
            (own or torch).manual_seed(seed)
            self._seeds.append(seed)
        self.totals.zero_()
        self.penalty.zero_()

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        images, labels = batch
        if labels.device.type == "cuda" and self.not_replayed is None:
            self.replay(images, labels)
        else:
            self.gradients(images, labels, self.manual_backward)
        self.optimizers().step()  # type: ignore[union-attr]  # one optimizer

    def gradients(
        self,
        images: torch.Tensor | Gathered,
        labels: torch.Tensor,
        backward: Callable[[torch.Tensor], None] = torch.Tensor.backward,
    ) -> None:
        """Put the gradients of a batch of every network, (K, B, …), into `stack.grads`, and count what was measured."""
        self.stack.grads.zero_()
        self.penalty += self.stacked_optimizer.penalty()
        if self.kernel is not None:
            found = self.kernel.gradients(
                images, labels, share=self.share, seeds=self._seeds or None, step=self._step_of_epoch
            )
            self._step_of_epoch += 1
            _count(self.totals, found, labels, _cross_entropy(found, labels))
            return
        assert isinstance(images, torch.Tensor)
        for (low, high), leaf in zip(self.passes, self._leaves, strict=True):
            found = self._forward(images, low, high, leaf, self._masks(low, high))
            ce = _cross_entropy(found, labels[low:high])
            total = ce.sum()
            backward(total if self.share == 1 else total * self.share)
            _count(self.totals[:, low:high], found.detach(), labels[low:high], ce.detach())

    def replay(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Do what `gradients` does, replayed as a CUDA graph."""
        size = labels.shape[1]
        if size not in self._steps:
            inputs = images.clone(), labels.clone()
            state = [self.stack.grads, self.penalty, self.totals, *self.stack.buffers.values()]
            generators = [own for own in self._generators if own is not None]

            def work() -> None:
                self.gradients(*inputs, self.manual_backward)

            self._steps[size] = Replayed(work, state, images.device, inputs, generators)
        step = self._steps[size]
        for kept, values in zip(step.inputs, (images, labels), strict=True):
            kept.copy_(values)
        step()
        self.not_replayed = step.reason

    def _forward(
        self, images: torch.Tensor, low: int, high: int, rows: torch.Tensor, masks: Masks | None = None
    ) -> torch.Tensor:
        """Return log-probabilities (k, B, C) of networks `low` to `high`, by one pass. rows: their parameters."""
        if high - low == 1:
            return self.models[low](images[low])[None]  # type: ignore[no-any-return]  # a module's call is Any
        layers = self.models[self._layers_of]
        mean, std = (
            torch.stack([getattr(model, name) for model in self.models[low:high]]).view(-1, 1, 1, 1, 1)
            for name in ("pixel_mean", "pixel_std")
        )
        normal = (images[low:high].to(mean.dtype) - mean) / std
        numbers = StackedState(self.stack.named(rows), {name: v[low:high] for name, v in self.stack.buffers.items()})
        return log_probs(layers.net, numbers, normal, training=self.training, masks=masks)

    def _masks(self, low: int, high: int) -> Masks | None:
        """Dropout masks of some networks, each from its own stream, as the network alone would draw them."""
        rates = [settings.dropout for settings in self.settings[low:high]]
        if not any(rates):
            return None

        def masks(maps: torch.Tensor) -> torch.Tensor:
            batch, channels, height, width = maps.shape
            shape = torch.Size((batch, channels // (high - low), height, width))
            drawn = [
                keep_mask(shape, rate, maps, stream) if rate else maps.new_ones(shape)
                for rate, stream in zip(rates, self._generators[low:high], strict=True)
            ]
            return fold(torch.stack(drawn))

        return masks

    def running_accuracy(self) -> torch.Tensor:
        """Return the accuracies in train mode over the images of this epoch that this process has seen: (K,)."""
        return self.totals[0] / self.totals[2]

    def end_epoch(self) -> list[dict[str, float]]:
        """Return what the epoch has measured of each network, over all processes, by TensorBoard's tag. Accuracy and
        cross-entropy are means over images, the penalty is a mean over steps."""
        acc, ce = self._means(self.totals)
        penalty = self.penalty / self.trainer.num_training_batches
        lr = self.stacked_optimizer.lr(self.stacked_optimizer.state[self.stacked_optimizer.matrix]["step"] - 1).view(-1)
        values = {
            "loss/train": ce + penalty,
            "ce/train": ce,
            "penalty/train": penalty,
            "acc/train_running": acc,
            "optim/lr": lr,
        }
        for part, (held_acc, held_ce) in self.held_out.items():
            values |= {f"acc/{part}": held_acc, f"ce/{part}": held_ce}
        # float32 holds all the digits that were measured, and makes short numbers in metrics.csv
        columns = {tag: value.float().tolist() for tag, value in values.items()}
        return [{tag: column[index] for tag, column in columns.items()} for index in range(len(self.models))]

    def _means(self, totals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Accuracy and cross-entropy over the images of all processes, (K,) each."""
        right, ce, images = self.trainer.strategy.reduce(totals.clone(), reduce_op="sum")
        return right / images, ce / images

    # Evaluation

    def _evaluate(self, images: torch.Tensor | Gathered) -> torch.Tensor:
        """Return log-probabilities (K, B, C) in eval mode."""
        if self.kernel is not None:
            return self.kernel.log_probs(images)
        assert isinstance(images, torch.Tensor)
        at_once = min(self.at_once, max(1, self.at_once * self.settings[0].batch_size // EVAL_BATCH))
        parts = []
        for low in range(0, len(self.models), at_once):
            high = min(low + at_once, len(self.models))
            parts.append(self._forward(images, low, high, self.stack.parameters[low:high]))
        return torch.cat(parts)

    def on_validation_epoch_start(self) -> None:
        for totals in self._held_out.values():
            totals.zero_()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        images, labels = batch
        if labels.shape[1]:  # else the others' share was all of it
            totals, found = self._held_out[self.data.curves[dataloader_idx]], self._evaluate(images)
            _count(totals, found, labels, _cross_entropy(found, labels))

    def on_validation_epoch_end(self) -> None:
        self.held_out = {part: self._means(totals) for part, totals in self._held_out.items()}

    def restack(self) -> None:
        """Evaluate with the numbers that the networks have now."""
        self.stack = Stack(self.nets)
        self._take_kernels()

    on_predict_start = restack

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> torch.Tensor:
        """Return the log-probabilities of a batch: (K, B, C), float32, on the CPU."""
        return self._evaluate(batch[0]).float().cpu()


def _count(totals: torch.Tensor, log_probs: torch.Tensor, labels: torch.Tensor, ce: torch.Tensor) -> None:
    """Add a batch to the totals of k networks, (3, k), from (k, B, C), (k, B) and mean cross-entropies (k,)."""
    right, sums, images = totals
    right += (log_probs.argmax(2) == labels).sum(1)
    sums.add_(ce, alpha=labels.shape[1])
    images += labels.shape[1]


def _cross_entropy(log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean over the images of each network: (k,) of (k, B, C) and (k, B)."""
    # nll_loss would wake threads for it, which takes longer than all the rest of a small step around the kernels
    return -log_probs.gather(-1, labels[..., None]).squeeze(-1).mean(1)


def _dropouts(net: Network) -> list[Dropout]:
    return [layer for layer in net.modules() if isinstance(layer, Dropout)]
