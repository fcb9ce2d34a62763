"""The arithmetic that norms share, on maps (N, C, H, W) or on those of K networks at once, (N, K, C, H, W).

Axes count from the right, and numbers per channel are (C,) or (K, C), so that one formula serves both. torch's kernels
compute where they are fast and right; `_Standardise` takes their place on CPU for channels_last maps, where torch is
slow for statistics over a batch, for many groups and for single channels. Tools that read the code (scripting, tracing,
export) see torch's operators only. Statistics of half-precision maps are taken in float32, as torch's layers take them.
"""

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Proxy, Tracer
from torch.jit import is_scripting as is_scripting  # type: ignore[attr-defined]  # documented, not in its __all__
from torch.jit import is_tracing  # type: ignore[attr-defined]
from torch.nn import functional as F

FEW = 8  # groups per image: with more of them torch's channels_last kernel is slower, by far with one per channel
WIDEST = 640  # numbers in a row of several pixels
STEEP = 30.0  # |μ| / σ beyond which E[x²] − μ² in float32 has lost the variance


def is_half(x: Tensor) -> bool:
    """Whether x is float16 or bfloat16, so that its statistics are float32."""
    return x.dtype == torch.float16 or x.dtype == torch.bfloat16


def upcast(x: Tensor) -> Tensor:
    """float32 for maps in half precision; others as they are."""
    return x.float() if is_half(x) else x


def node(layer: nn.Module, x: Any) -> Any:
    """y as one node of the graph where torch.fx traces a network with this layer; None where nothing is traced.

    So the graph follows train and eval mode, as it does with torch's own layers.
    """
    path = x.tracer.path_of_module(layer) if isinstance(x, Proxy) and isinstance(x.tracer, Tracer) else ""
    return x.tracer.create_proxy("call_module", path, (x,), {}) if path else None


def per_channel(values: Tensor) -> Tensor:
    """(C,) or (K, C), as they meet maps."""
    return values[..., None, None]


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, scale: Tensor | None = None) -> Tensor:
    """γ · s · x + β, with γ and β per channel; None: 1, 0 and 1. s, of a statistic's shape, is multiplied by γ first:
    one pass over the maps less."""
    if weight is not None:
        scale = per_channel(weight) if scale is None else scale * per_channel(weight)
    if scale is not None:
        x = x * scale
    if bias is not None:
        x = x + per_channel(bias)
    return x


def moments(x: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance over `dims`, which stay as axes of length 1.

    In two passes: torch.var_mean takes 4 ns per number on CPU, these take 0.3 in cache (torch 2.14).
    """
    mean = x.mean(dims, keepdim=True)
    return mean, (x - mean).square().mean(dims, keepdim=True)


def group_var(x: Tensor, groups: int) -> Tensor:
    """Biased variance over (C / groups, H, W), (…, C, 1, 1): the same for all channels of a group."""
    sets = x.unflatten(-3, [groups, -1])  # type: ignore[no-untyped-call]
    _, var = moments(sets, [-3, -2, -1])
    return var.expand_as(sets[..., :1, :1]).flatten(-4, -3)


def mean_square(x: Tensor, dims: list[int]) -> Tensor:
    """Mean of x² over `dims`, which stay as axes of length 1."""
    return x.square().mean(dims, keepdim=True)


def eval_norm(x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """γ · (x − μ) / sqrt(σ² + ε) + β with given μ and σ², (C,) or (K, C), such as running averages."""
    row, folded = [flat(mean, x), flat(var, x), flat(weight, x), flat(bias, x)], merge_networks(x)
    return split_networks(F.batch_norm(folded, row[0], row[1], row[2], row[3], False, 0.0, eps), x)


def merge_networks(x: Tensor) -> Tensor:
    """(N, C, H, W) or (N, K, C, H, W) as (N, K · C, H, W).

    Maps of one network are not viewed anew: a view may give the axis of a single image another stride, with which
    torch's batch norm on CPU takes channels_last maps for contiguous ones, without a word (2.14).
    """
    if x.dim() == 4:
        return x
    return x.squeeze(1) if x.shape[1] == 1 else x.flatten(1, 2)


def split_networks(y: Tensor, x: Tensor) -> Tensor:
    """y (N, K · C, H, W) in the shape of x."""
    if x.dim() == 4:
        return y
    return y.unsqueeze(1) if x.shape[1] == 1 else y.view(x.shape)


def flat(values: Tensor | None, x: Tensor) -> Tensor | None:
    """(K, C) or (C,) as one row of the dtype of x; float32 beside maps in half precision, as torch takes it."""
    return None if values is None else values.flatten().to(torch.float32 if is_half(x) else x.dtype)


def running(x: Tensor, average: Tensor) -> Tensor:
    """A running average (C,) or (K, C) as it meets maps x, in their dtype. torch.fx records that it is read."""
    return average[..., None, None].to(x.dtype)


def step_(
    x: Tensor,  # noqa: ARG001  # torch.fx records what depends on the maps
    tracked: Tensor,
    momentum: float | None,
) -> float:
    """Count a batch x in `tracked`; return the momentum with which it enters running averages. None: they are means."""
    tracked.add_(1)
    return 1.0 / float(tracked.reshape(-1)[0]) if momentum is None else momentum


def track_(average: Tensor, batch: Tensor, factor: float) -> None:
    """Move a running average (C,) or (K, C) towards the statistic of a batch, in place."""
    new = batch.detach().reshape(average.shape).to(average.dtype)
    average.add_(new - average, alpha=factor)  # not lerp_, which torch.vmap does one network at a time


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """γ · (x − μ) / sqrt(σ² + ε) + β; μ and σ² over (C / groups, H, W) of each image."""
    if is_scripting():
        return F.group_norm(x, groups, flat(weight, x), flat(bias, x), eps)
    return _group_norm(x, groups, weight, bias, eps)


@torch.jit.unused
def _group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    folded = merge_networks(x)
    groups *= folded.shape[1] // x.shape[-3]
    weight, bias = flat(weight, x), flat(bias, x)
    if not _rows_fit(folded):
        return split_networks(F.group_norm(folded, groups, weight, bias, eps), x)
    if groups <= FEW:
        n, c, h, w = folded.shape
        y, mean, rstd = torch.native_group_norm(folded, weight, bias, n, c, h * w, groups, eps)
        if not _steep(mean, rstd):
            return split_networks(y, x)
    return split_networks(_Standardise.apply(folded, groups, weight, bias, eps)[0], x)


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """γ · (x − μ) / sqrt(σ² + ε) + β; μ and σ² over the channels of each pixel."""
    if x.dim() == 4:
        weight, bias = flat(weight, x), flat(bias, x)
        return F.layer_norm(x.permute(0, 2, 3, 1), [x.shape[1]], weight, bias, eps).permute(0, 3, 1, 2)
    y = F.layer_norm(x.permute(0, 3, 4, 1, 2), [x.shape[2]], None, None, eps)
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return y.permute(0, 3, 4, 1, 2)


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    """One training step's batch norm; the running statistics, (C,) or (K, C), move in place.

    running = (1 − momentum) · running + momentum · batch, with the unbiased variance of the batch.
    """
    if is_scripting():
        return F.batch_norm(x, running_mean, running_var, flat(weight, x), flat(bias, x), True, momentum, eps)
    return _batch_norm(x, running_mean, running_var, weight, bias, momentum, eps)


@torch.jit.unused
def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
) -> Tensor:
    folded = merge_networks(x)
    if x.device.type == "cpu":  # torch's kernel for channels_last maps in float16 squares in float16
        folded = upcast(folded)
    values = folded.numel() // folded.shape[1]  # one number per channel: torch says why that cannot be
    mean = None if running_mean is None else running_mean.view(-1)
    var = None if running_var is None else running_var.view(-1)
    dtypes = {given.dtype for given in (mean, var, weight, bias) if given is not None}
    torchs = dtypes <= {folded.dtype} or (is_half(folded) and dtypes <= {torch.float32})
    if values < 2 or (torchs and not _rows_fit(folded)):
        weight, bias = (None if given is None else given.flatten() for given in (weight, bias))
        return split_networks(F.batch_norm(folded, mean, var, weight, bias, True, momentum, eps).to(x.dtype), x)
    wide, weight, bias = upcast(folded), flat(weight, x), flat(bias, x)
    y, own_mean, own_var = (_Standardise.apply if _rows_fit(wide) else _plain)(wide, None, weight, bias, eps)
    for average, batch in ((mean, own_mean), (var, own_var * (values / (values - 1)))):
        if average is not None:
            track_(average, batch, momentum)
    return split_networks(y.to(x.dtype), x)


def _rows_fit(x: Tensor) -> bool:
    """Whether `_Standardise` takes x as it lies in memory: channels_last maps on CPU."""
    if is_tracing() or torch.compiler.is_compiling() or x.device.type != "cpu" or x.dim() != 4:  # type: ignore[no-untyped-call]
        return False
    n, c, h, w = x.shape
    # One image may have any first stride: torch 2.14's batch norm has a wrong gradient there (its own is contiguous).
    image = n == 1 or x.stride(0) == c * h * w
    return c > 1 and h * w > 1 and n > 0 and image and x.stride()[1:] == (1, w * c, c)


def _plain(
    x: Tensor, groups: int | None, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `_Standardise` computes, by operators with derivatives of every order."""
    sets: Tensor = x[:, :, None] if groups is None else x.unflatten(1, (groups, -1))  # type: ignore[no-untyped-call]
    dims = [0, 2, 3, 4] if groups is None else [2, 3, 4]
    mean, var = moments(sets, dims)
    y = ((sets - mean) * torch.rsqrt(var + eps)).reshape(x.shape)
    shape = (-1,) if groups is None else (len(x), groups)
    return affine(y, weight, bias), mean.reshape(shape), var.reshape(shape)


def _steep(mean: Tensor, rstd: Tensor) -> bool:
    """Whether a mean is so large beside σ that torch's kernel, which computes σ² as E[x²] − μ², has lost it. True under
    vmap, where no value can be looked at."""
    try:
        return bool((mean * rstd).abs().amax() > STEEP)
    except RuntimeError:
        return True


class _Sets:
    """Which numbers share a statistic, and how per-channel values meet rows of k pixels: (N, H · W / k, k · C)."""

    def __init__(self, shape: torch.Size, groups: int | None) -> None:
        self.n, self.c, h, w = shape
        self.k = next(k for k in (16, 8, 4, 2, 1) if (h * w) % k == 0 and (k * self.c <= WIDEST or k == 1))
        self.groups = groups
        self.count = self.n * h * w if groups is None else h * w * (self.c // groups)

    def rows(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).reshape(self.n, -1, self.k * self.c)

    def maps(self, rows: Tensor, like: torch.Size) -> Tensor:
        n, c, h, w = like
        return rows.view(n, h, w, c).permute(0, 3, 1, 2)

    def per_channel(self, rows: Tensor) -> Tensor:
        """Sums over pixels, and over images where the batch shares: (C,) or (N, C)."""
        sums = rows.sum((0, 1) if self.groups is None else 1)
        return sums if self.k == 1 else sums.view(*sums.shape[:-1], self.k, self.c).sum(-2)

    def share(self, sums: Tensor) -> Tensor:
        """Means over the sets from sums per channel: (C,) or (N, groups)."""
        return (sums if self.groups is None else sums.view(self.n, self.groups, -1).sum(2)) / self.count

    def spread(self, shared: Tensor) -> Tensor:
        """A value per set, for each of its channels: (C,) or (N, C)."""
        return shared if self.groups is None else shared.repeat_interleave(self.c // self.groups, 1)

    def wide(self, values: Tensor) -> Tensor:
        """(C,) or (N, C), as they meet rows."""
        if self.k == 1:
            return values if values.dim() == 1 else values.unsqueeze(1)
        return values.repeat(self.k) if values.dim() == 1 else values.repeat(1, self.k).unsqueeze(1)


class _Standardise(torch.autograd.Function):
    """γ · (x − μ) / sqrt(σ² + ε) + β by few passes over memory, with μ and σ² of the sets that share them.

    x (N, C, H, W); groups: so many groups of channels in each image share their statistics, (N, groups); None: each
    channel, over the batch, (C,). Return y, the means and the variances. The pixels of an image lie as rows of several
    pixels, wide enough for vector instructions; every pass runs in place over one buffer, and sums are taken in two
    steps.
    """

    @staticmethod
    def forward(
        x: Tensor, groups: int | None, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        sets = _Sets(x.shape, groups)
        rows = sets.rows(x)
        mean = sets.share(sets.per_channel(rows))
        centre = sets.spread(mean)
        maps = torch.empty_like(x)  # and no view of anything: a ReLU behind it may work in place
        y = torch.sub(rows, sets.wide(centre), out=sets.rows(maps))
        var = sets.share(sets.per_channel(y.square_()))
        scale = sets.spread((var + eps).rsqrt())
        slope = scale if weight is None else weight * scale
        shift = -centre * slope if bias is None else bias - centre * slope
        torch.addcmul(sets.wide(shift), rows, sets.wide(slope), out=y)
        return maps, mean, var

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        x, ctx.groups, weight, bias, ctx.eps = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(x, weight, bias, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, var = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True: derivatives of derivatives
            given = {key: each for key, each in zip("xwb", (x, weight, bias), strict=True) if each is not None}

            def y(of: dict[str, Tensor]) -> Tensor:
                return _plain(of["x"], ctx.groups, of.get("w"), of.get("b"), ctx.eps)[0]

            [grads] = torch.func.vjp(y, given)[1](grad)
            return grads["x"], None, grads.get("w"), grads.get("b"), None
        sets = _Sets(x.shape, ctx.groups)
        rows, dy = sets.rows(x), sets.rows(grad)
        centre, scale = sets.spread(mean), sets.spread((var + ctx.eps).rsqrt())
        d = torch.sub(rows, sets.wide(centre)).mul_(dy)
        by_weight, by_bias = sets.per_channel(d) * scale, sets.per_channel(dy)
        # dx = γ/σ · dy − (mean(γ · dy) + x̂ · mean(γ · dy · x̂)) / σ, with x̂ = (x − μ)/σ
        gamma = torch.ones_like(scale) if weight is None else weight.expand_as(scale)
        tilt = -scale.square() * sets.spread(sets.share(by_weight * gamma))
        shift = -scale * sets.spread(sets.share(by_bias * gamma)) - centre * tilt
        torch.addcmul(sets.wide(shift), rows, sets.wide(tilt), out=d)
        d.addcmul_(dy, sets.wide(gamma * scale))
        if ctx.groups is not None:
            by_weight, by_bias = by_weight.sum(0), by_bias.sum(0)
        dw, db = None if weight is None else by_weight, None if bias is None else by_bias
        return sets.maps(d, x.shape), None, dw, db, None

    @staticmethod
    def vmap(_info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, tuple[int, int, int]]:
        x, groups, weight, bias, eps = args
        dims = (in_dims[0], in_dims[2], in_dims[3])
        return torch.vmap(lambda x, w, b: _plain(x, groups, w, b, eps), dims)(x, weight, bias), (0, 0, 0)


# `apply` asks for it at every call, and reading it anew takes longer than a small layer does.
_Standardise.forward.__signature__ = signature(_Standardise.forward)  # type: ignore[attr-defined]

NODES = ("upcast", "group_norm", "group_var", "layer_norm", "batch_norm", "eval_norm", "running", "step_", "track_")
for _name in NODES:  # one node each in a graph of torch.fx: what they do is not frozen when a layer is traced alone
    torch.fx.wrap(_name)
