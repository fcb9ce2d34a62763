"""What the layers of this folder share: how a norm is built from its description, and running statistics."""

from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn

from normlab.norms import ops
from normlab.norms.about import About
from normlab.norms.processes import Group, mean_over, total


class Norm(nn.Module):
    """A normalization layer for maps (N, C, H, W), or K of them at once for (N, K, C, H, W) with numbers (K, …).

    A subclass names its description, `class RMSNorm2d(Norm, about=ABOUT)`, and writes `normalize`. Options become
    attributes, `about.learned` become parameters (None where switched off). Half-precision maps are computed in
    float32.

    Args:
        num_channels: C. size: (H, W), where a parameter has a number for every position.
        options: every option of conf/norm/<name>.yaml; `make_norm` fills them in.

    Raises `ValueError`, in one line, where an option is unknown or out of range.
    """

    about: ClassVar[About]
    eps: float  # of norms that have it
    weight: Tensor | None
    bias: Tensor | None

    def __init_subclass__(cls, about: About | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if about is not None:
            cls.about = about

    def __init__(self, num_channels: int, *, size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__()
        self.about.check(options, [num_channels])
        if missing := set(self.about.options) - set(options):
            raise ValueError(f"{type(self).__name__} needs {', '.join(sorted(missing))}")
        self.num_channels = num_channels
        self._repr = ", ".join([str(num_channels), *(f"{key}={value}" for key, value in options.items())])
        for name, value in options.items():
            setattr(self, name, value)
        for name, number in ({} if self.about.conv else self.about.learned).items():
            parameter = None
            if not number.when or options[number.when]:
                start = options[number.start] if isinstance(number.start, str) else number.start
                parameter = nn.Parameter(torch.full(number.size(num_channels, size), float(start)))
            self.__dict__.pop(name, None)  # an option that is the start of a parameter of its name
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        """y of the shape and dtype of x."""
        y: Tensor | None = None if ops.is_scripting() else ops.node(self, x)
        if y is not None:
            return y
        return self.normalize(ops.upcast(x)).to(x.dtype)

    def normalize(self, x: Tensor) -> Tensor:
        """y for maps of float32 or float64."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return self._repr


class RunningStatistics(nn.BatchNorm2d):
    """Running mean and variance of a `BatchStatisticsNorm`, and the base of `bn`, in the form that torch's tools know.

    `update_bn` and StochasticWeightAveraging reset them and average them anew (momentum None: every batch counts the
    same); `SyncBatchNorm.convert_sync_batchnorm` puts a `SyncBatchNorm` in their place, see `over_processes`.
    """

    synced = False  # set by `synchronise`


class BatchStatisticsNorm(Norm):
    """A norm with statistics of the batch: running averages take their place in eval mode.

    running = (1 − momentum) · running + momentum · batch, with the unbiased variance; momentum None: their mean.
    """

    def __init__(self, num_channels: int, *, size: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(num_channels, size=size, **options)
        self.running = RunningStatistics(num_channels, momentum=options.get("momentum"), affine=False)

    def normalize(self, x: Tensor) -> Tensor:
        """γ · (x − μ) / sqrt(σ² + ε) + β, with the `statistics` of each channel."""
        mean, var = self.statistics(x)
        return ops.affine(x - mean, self.weight, self.bias, torch.rsqrt(var + self.eps))

    @torch.jit.unused
    def over_processes(self) -> bool:
        """Whether statistics are over all processes."""
        return over_processes(self.running)

    @property
    def group(self) -> Group:
        """The processes, as `SyncBatchNorm.convert_sync_batchnorm` took them; None: all."""
        return getattr(self.running, "process_group", None)

    __jit_unused_properties__: ClassVar[list[str]] = ["group"]

    def averages(self) -> tuple[Tensor, Tensor]:
        """The running mean and variance, (C,) or (K, C)."""
        mean, var = self.running.running_mean, self.running.running_var
        assert mean is not None
        assert var is not None
        return mean, var

    def batch_mean(self, x: Tensor, dims: list[int]) -> Tensor:
        """Mean over `dims`, which stay as axes of length 1, of this process or of all."""
        if ops.is_scripting():
            return x.mean(dims, keepdim=True)
        return mean_over(x, dims, self.group) if self.over_processes() else x.mean(dims, keepdim=True)

    def batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and biased variance of each channel of a batch, (1, C, 1, 1) or (1, K, C, 1, 1)."""
        mean = self.batch_mean(x, [0, -2, -1])
        return mean, self.batch_mean((x - mean).square(), [0, -2, -1])

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch's mean and variance, which move the running averages; in eval mode, these averages."""
        if self.training:
            mean, var = self.batch_statistics(x)
            self.track(x, mean, var)
            return mean, var
        mean, var = self.averages()
        return ops.running(x, mean), ops.running(x, var)

    def variance(self, x: Tensor) -> Tensor:
        """Return the batch's variance, which moves its running average; in eval mode, that average."""
        if not self.training:
            return ops.running(x, self.averages()[1])
        var = self.batch_statistics(x)[1]
        self.track(x, None, var)
        return var

    def step(self, x: Tensor) -> float:
        """Count a batch; return the momentum with which it enters the running averages."""
        tracked = self.running.num_batches_tracked
        assert tracked is not None
        return ops.step_(x, tracked, self.running.momentum)

    def track(self, x: Tensor, mean: Tensor | None, var: Tensor | None) -> None:
        """Move the running averages by a batch x with mean and biased variance of a channel, (C, 1, 1) or (K, C, 1, 1).

        None: leave that average as it is.
        """
        unbiased = None if var is None else self.unbiased(x, var)  # first: it refuses batches without a variance
        factor = self.step(x)
        average, variance = self.averages()
        if mean is not None:
            ops.track_(average, mean, factor)
        if unbiased is not None:
            ops.track_(variance, unbiased, factor)

    def unbiased(self, x: Tensor, var: Tensor) -> Tensor:
        """n / (n − 1) times the biased variance of the n numbers that a channel has in x, in all processes."""
        if not ops.is_scripting() and self.over_processes():
            return var * correction(total(x, [0, -2, -1], self.group))
        return var * correction(x.shape[0] * x.shape[-2] * x.shape[-1])


@torch.fx.wrap
def correction(count: int) -> float:
    """n / (n − 1). Raise `ValueError` where a channel has one number."""
    if count < 2:
        raise ValueError("one number per channel has no variance: train with larger batches or maps")
    return count / (count - 1)


def over_processes(running: nn.Module) -> bool:
    """Whether a layer with these running statistics takes its batch statistics over several processes.

    `synchronise` or torch's `SyncBatchNorm.convert_sync_batchnorm` has to ask for it; as with `nn.SyncBatchNorm`, a
    program of one process need not start torch.distributed.
    """
    wanted = isinstance(running, nn.SyncBatchNorm) or (isinstance(running, RunningStatistics) and running.synced)
    return wanted and distributed.is_available() and distributed.is_initialized()


def synchronise(net: nn.Module, on: bool = True) -> None:
    """Let every layer of `net` with batch statistics take them over all processes, or over its own share again.

    It does what `SyncBatchNorm.convert_sync_batchnorm` does, but for bn on CPU too, and it can be undone.
    """
    for module in net.modules():
        if isinstance(module, RunningStatistics):
            module.synced = on
