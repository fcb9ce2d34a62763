"""K small networks' training step and evaluation by the kernels, on the tensors of their `Stack`."""

import ctypes
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch

from normlab.kernels.compile import library, vectors
from normlab.kernels.support import NUMBERS, shape_of
from normlab.nets.folded import Stack
from normlab.nets.layers import FilterConv2d
from normlab.nets.net import Net
from normlab.norms import is_packaged
from normlab.norms.about import ROOT_MEAN_SQUARE, STANDARDISED
from normlab.norms.layer import correction
from normlab.settings.shape import Stage, small_network

BLOCKS = 5
HEAD, LAST = BLOCKS, 2 * BLOCKS  # phases, see step.cpp
NONE, IMAGE, BATCH, OUTSIDE = range(4)  # kinds of norms, see norms.h
OVER = {"HW": IMAGE, "GHW": IMAGE, "CHW": IMAGE, "NHW": BATCH, "VHW": BATCH}  # the axes that a statistic is of
GET_R, SET_Y, GET_D, SET_D = range(4)
OF_BATCH = 2**62  # images of a ghost batch that is the whole batch


class Norm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "groups", "centred", "ghost")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("mean", "var", "tracked")),
        ("momentum", ctypes.c_double),
        ("drops", ctypes.c_int64),
    )


class Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("networks", "images", "parameters", "training", "pre", "threads")),
        ("conv", ctypes.c_int64 * BLOCKS),
        *((name, ctypes.c_int64) for name in ("squeeze", "head")),
        ("norms", Norm * BLOCKS),
        *((name, ctypes.c_void_p) for name in ("rows", "grads", "pixels", "pool", "where", "turns")),
        *((name, ctypes.c_double) for name in ("rotation", "shift")),
        *((name, ctypes.c_void_p) for name in ("mean", "sd", "labels", "log_probs")),
        ("share", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("rates", "seeds")),
        ("step", ctypes.c_uint64),
    )


def kind_of(layer: Any) -> int:
    """How the kernels compute a norm: by its description in the catalogue."""
    if not is_packaged(layer):
        return OUTSIDE
    about = layer.about
    if about.formula == "x" or about.conv:
        return NONE
    if about.formula not in (STANDARDISED, ROOT_MEAN_SQUARE) or any(own.shape != "C" for own in about.learned.values()):
        return OUTSIDE
    return OVER.get(" ".join(about.axes), OUTSIDE)


class Gathered(NamedTuple):
    """Images that are still bytes of a pool.

    Attributes:
        pool: uint8 (N, C, H, W). where: int64 (K, B), the places of the images in it.
        draws: float32 (K, B, 3) in [-1, 1], see `normlab.data.augment`; None: images are not moved.
        rotation, shift: the largest, in degrees and pixels.
    """

    pool: torch.Tensor
    where: torch.Tensor
    draws: torch.Tensor | None = None
    rotation: float = 0.0
    shift: float = 0.0

    def split(self, size: int, dim: int) -> list["Gathered"]:
        """Cut along an axis of `where`, as a tensor's `split` does."""
        where = torch.split(self.where, size, dim)
        draws = [None] * len(where) if self.draws is None else torch.split(self.draws, size, dim)
        return [self._replace(where=own, draws=drawn) for own, drawn in zip(where, draws, strict=True)]


class Kernel:
    """The kernels for K networks that are supported (`unsupported`) and own the rows of a stack.

    The bits of a network's gradients, running statistics and log-probabilities depend neither on the other networks nor
    on the number of threads. Norms that are not native are computed by torch, on the maps between two convolutions.

    Args:
        nets: of one shape, with one kind of norm. stack: of their numbers, which change in place.
        mean, std: of the pixels of each network's images, (K,). rates: of each network's dropout.

    Raise `RuntimeError`, with the reason in one line, where they cannot be compiled.
    """

    def __init__(
        self,
        nets: Sequence[Net],
        stack: Stack,
        mean: torch.Tensor,
        std: torch.Tensor,
        rates: Sequence[float] | None = None,
    ) -> None:
        self.nets, self.stack, self.net = nets, stack, nets[0]
        dtype = stack.parameters.dtype
        self.mean, self.std = mean.to(dtype).contiguous(), std.to(dtype).contiguous()
        self.rates = torch.tensor(rates or [0.0] * len(nets), dtype=torch.float64)
        self._drops = bool(self.rates.any())
        self._shape = shape_of(self.net)
        self._number = NUMBERS[dtype]
        self.lanes = vectors().bits // (8 * dtype.itemsize)
        self._steps: dict[bool, tuple[ctypes.CDLL, int]] = {}
        self._step(False)
        sizes = [shape.numel() for shape in stack.shapes.values()]
        self._at = dict(zip(stack.shapes, accumulate(sizes, initial=0), strict=False))  # where each begins in a row
        self.stages = [stage for stage in small_network(*self._shape) if stage.block]
        self._norms = [self.net.get_submodule(name) for name in self.net.norms]
        kinds = {kind_of(layer) for layer in self._norms}
        self._kind = kinds.pop() if len(kinds) == 1 else OUTSIDE
        children = list(dict(self.net.get_submodule("block1").named_children()))
        self._pre = children.index("norm") < children.index("relu")
        self._filters = {
            f"{name}.weight": layer for name, layer in self.net.named_modules() if isinstance(layer, FilterConv2d)
        }

    def __del__(self) -> None:
        for functions, step in self._steps.values():
            functions.step_free(step)

    def _step(self, shared: bool) -> tuple[ctypes.CDLL, int]:
        if shared not in self._steps:
            functions = library(*self._shape, self._number, shared)
            if isinstance(functions, str):
                if shared:  # one network per block computes the same
                    return self._step(False)
                raise RuntimeError(functions)
            step = functions.step_new()
            if not step:
                raise MemoryError("there is no memory for the kernels")
            self._steps[shared] = functions, step
        return self._steps[shared]

    # What is computed

    def gradients(
        self,
        images: torch.Tensor | Gathered,
        labels: torch.Tensor,
        *,
        share: float = 1.0,
        seeds: Sequence[int] | None = None,
        step: int = 0,
    ) -> torch.Tensor:
        """Add the gradients of share · mean cross-entropy of each network's batch to `stack.grads`; return the
        log-probabilities (K, B, classes). Running statistics move as in train mode.

        Args:
            images: (K, B, C, H, W) in [0, 1]. labels: int64 (K, B).
            seeds, step: from which the dropout masks follow, with the places in the batch: a seed per network.
        """
        self._check_batch(labels.shape[1])
        rows, grads = self.stack.parameters, self.stack.grads
        if not self._filters:
            return self._run(rows, grads, images, labels, share, seeds, step)
        with torch.enable_grad():
            leaves = [row.detach()[None].requires_grad_() for row in rows]
            filters = [self._reparametrised(leaf) for leaf in leaves]
        by_filter = torch.zeros_like(grads)
        found = self._run(torch.cat(filters).detach(), by_filter, images, labels, share, seeds, step)
        for leaf, row, by, grad in zip(leaves, filters, by_filter, grads, strict=True):
            grad += torch.autograd.grad(row, leaf, by[None])[0][0]
        return found

    def masks(self, network: int, images: int, *, seed: int, step: int) -> dict[str, torch.Tensor]:
        """Return the dropout masks of a step of one network, 0 or 1 / (1 - p), (B, C, H, W), by the layer's name."""
        functions, _ = self._step(False)
        rate, found = float(self.rates[network]), {}
        for block, stage in enumerate(self.stages):
            if stage.dropout and rate:
                kept = torch.empty(images, stage.outputs, *stage.size, dtype=torch.uint8)
                if not functions.step_masks(block, seed, step, rate, images, kept.data_ptr()):
                    raise MemoryError("there is no memory for the dropout masks")
                found[f"{stage.name}.dropout"] = kept.to(self.stack.parameters.dtype) / (1 - rate)
        return found

    def log_probs(self, images: torch.Tensor | Gathered) -> torch.Tensor:
        """Return the log-probabilities (K, B, classes) of images in eval mode."""
        rows = self.stack.parameters
        if self._filters:
            with torch.no_grad():
                rows = torch.cat([self._reparametrised(row[None]) for row in rows])
        if self._kind != OUTSIDE or not is_packaged(self._norms[0]):  # a user's own may see the batch in eval mode too
            return self._run(rows, None, images)
        some = 2 * self.lanes * torch.get_num_threads()  # their maps stay in cache between the kernels and torch
        return torch.cat([self._run(rows, None, part) for part in images.split(some, 1)], 1)

    def _reparametrised(self, row: torch.Tensor) -> torch.Tensor:
        """One network's parameters (1, P) with the filters in the place of the weights that they are a function of. One
        at a time: its bits are then those that it has alone."""
        named = self.stack.named(row)
        values = []
        for name, value in named.items():
            if layer := self._filters.get(name):
                value = layer.reparametrise(value, named.get(f"{name.removesuffix('weight')}gain"))
            values.append((value.permute(0, 1, 3, 4, 2) if value.dim() == 5 else value).flatten(1))
        return torch.cat(values, 1)

    def _check_batch(self, images: int) -> None:
        """Raise `ValueError` where a statistic of the batch would be of one number, as the layers do."""
        if self._kind == BATCH:
            ghosts = [getattr(layer, "virtual_batch_size", images) for layer in self._norms]
            least = min(min(images % ghost or ghost, images) for ghost in ghosts)
            correction(least * min(math.prod(stage.size) for stage in self.stages))  # raises

    def _run(
        self,
        rows: torch.Tensor,
        grads: torch.Tensor | None,
        images: torch.Tensor | Gathered,
        labels: torch.Tensor | None = None,
        share: float = 1.0,
        seeds: Sequence[int] | None = None,
        step: int = 0,
    ) -> torch.Tensor:
        networks, batch = (images.where if isinstance(images, Gathered) else images).shape[:2]
        found = torch.empty(networks, batch, self.net.num_classes, dtype=rows.dtype)
        if not batch:
            return found
        job = Job(images=batch, parameters=rows.stride(0), training=grads is not None, pre=self._pre)
        job.threads, job.step, job.share = torch.get_num_threads(), step, share / batch
        seeded = torch.tensor(seeds or [0] * networks, dtype=torch.int64)
        of_each = {"rows": rows, "grads": grads, "mean": self.mean, "sd": self.std, "log_probs": found, "seeds": seeded}
        of_each |= {"rates": self.rates, "labels": None if labels is None else labels.contiguous()}
        if isinstance(images, Gathered):
            of_each |= {"where": images.where.contiguous()}
            if images.draws is not None and (images.rotation or images.shift):
                of_each["turns"] = images.draws.float().contiguous()
            job.rotation, job.shift = math.radians(images.rotation), images.shift
            pool = images.pool.contiguous()  # and so held until the end, as those in `of_each`
            job.pool = pool.data_ptr()
        else:
            of_each["pixels"] = images.to(rows.dtype).contiguous()
        for index, (stage, name, layer) in enumerate(zip(self.stages, self.net.norms, self._norms, strict=True)):
            self._describe(job.norms[index], stage, name, layer)
            job.conv[index] = self._at[f"block{index + 1}.conv.weight"]
        job.squeeze, job.head = self._at["squeeze.weight"], self._at["head.1.weight"]
        for low, high in self._parts(networks, batch, job):
            job.networks = high - low
            for name, values in of_each.items():
                setattr(job, name, None if values is None else values[low:high].data_ptr())
            for norm, name in zip(job.norms, self.net.norms, strict=True):
                self._running(norm, name, low)
            if self._kind == OUTSIDE:
                torch.set_num_threads(1)  # torch's sums have other bits on another number of threads
                try:
                    self._outside(job, low, high, rows.dtype)
                finally:
                    torch.set_num_threads(job.threads)
            else:
                self._phases(job, 0, LAST if job.training else HEAD)
        return found

    def _parts(self, networks: int, batch: int, job: Job) -> Iterator[tuple[int, int]]:
        """Which networks take their phases together: where they wait for one another, as few as keep threads busy."""
        some = networks
        if self._kind == OUTSIDE or (self._kind == BATCH and job.training):
            group = next(2**i for i in range(10) if 2**i >= min(batch, self.lanes))
            blocks = job.threads if self._kind == OUTSIDE else 4 * job.threads
            some = max(1, blocks // -(-batch // self.lanes)) * max(1, self.lanes // group)
        for low in range(0, networks, some):
            yield low, min(low + some, networks)

    def _phases(self, job: Job, first: int, last: int) -> None:
        functions, step = self._step(2 * job.images <= self.lanes)
        if not functions.step_run(step, ctypes.byref(job), first, last):
            raise MemoryError("there is no memory for the maps of the batch")

    # Norms

    def _describe(self, norm: Norm, stage: Stage, name: str, layer: Any) -> None:
        """Put a norm into numbers."""
        norm.kind, norm.groups, norm.ghost, norm.centred = self._kind, 1, OF_BATCH, True
        norm.weight, norm.bias = (self._at.get(f"{name}.{own}", -1) for own in ("weight", "bias"))
        norm.drops = stage.dropout and self._drops
        if self._kind in (NONE, OUTSIDE):
            norm.weight = norm.bias = -1
            return
        about, given = layer.about, vars(layer)
        channels = layer.num_channels if "num_channels" in given else layer.num_features
        norm.eps, norm.centred = given["eps"], about.centred
        [over] = about.axes
        norm.groups = {"HW": channels, "GHW": given.get("num_groups", 1)}.get(over, 1)
        norm.ghost = given["virtual_batch_size"] if over == "VHW" else OF_BATCH
        momentum = given.get("momentum")
        norm.momentum = -1.0 if momentum is None else momentum

    def _running(self, norm: Norm, name: str, low: int) -> None:
        """Point to the running statistics of the networks from `low` on."""
        if self._kind == BATCH:
            prefix = f"{name}.running" if f"{name}.running.running_mean" in self.stack.buffers else name
            norm.mean = self.stack.buffers[f"{prefix}.running_mean"][low:].data_ptr()
            norm.var = self.stack.buffers[f"{prefix}.running_var"][low:].data_ptr()
            norm.tracked = self.stack.buffers[f"{prefix}.num_batches_tracked"][low:].data_ptr()

    def _outside(self, job: Job, low: int, high: int, dtype: torch.dtype) -> None:
        """All phases, with torch's norms between them. One network at a time: its bits are then those it has alone."""
        functions, step = self._step(2 * job.images <= self.lanes)
        training = bool(job.training)
        nets = range(low, high)

        def maps(block: int, what: int, values: Sequence[torch.Tensor] | None = None) -> torch.Tensor:
            """(k, B, C, H, W), channels_last in memory."""
            stage = self.stages[block]
            shape = (high - low, job.images, *stage.size, stage.outputs)
            of_each = [each.permute(0, 2, 3, 1) for each in values or ()]
            lying = torch.stack(of_each) if of_each else torch.empty(shape, dtype=dtype)
            if lying.shape != shape or lying.dtype != dtype:
                raise ValueError(f"{self.net.norms[block]} gives {lying.dtype} maps of another shape than it takes")
            functions.step_exchange(step, ctypes.byref(job), block, what, lying.data_ptr())
            return lying.permute(0, 1, 4, 2, 3)

        passed = []
        for block, name in enumerate(self.net.norms):
            self._phases(job, block, block)
            with torch.set_grad_enabled(training):
                inputs = [each.clone(memory_format=torch.channels_last) for each in maps(block, GET_R)]
                layers = [self.nets[index].get_submodule(name).train(training) for index in nets]
                leaves = [each.requires_grad_(training) for each in inputs]
                outputs = [layer(leaf) for layer, leaf in zip(layers, leaves, strict=True)]
            maps(block, SET_Y, [each.detach() for each in outputs])
            passed.append((layers, leaves, outputs))
        self._phases(job, HEAD, HEAD)
        for block in reversed(range(BLOCKS if training else 0)):
            grads = []
            for layer, leaf, output, grad in zip(*passed[block], maps(block, GET_D), strict=True):
                if output.requires_grad:  # into `stack.grads` too, which hold the gradients of its parameters
                    inputs = [leaf, *(each for each in layer.parameters() if each.requires_grad)]
                    torch.autograd.backward(output, grad, inputs=inputs)
                grads.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
            maps(block, SET_D, grads)
            self._phases(job, LAST - block, LAST - block)
