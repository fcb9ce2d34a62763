"""Layers that subtract no mean: root mean square norm, filter response norm, dynamic tanh."""

import torch
from torch import nn

__all__ = ["DynamicTanh2d", "FilterResponseNorm2d", "RMSNorm2d", "dynamic_tanh", "filter_response_norm", "rms_norm"]


class RMSNorm2d(nn.Module):
    """Root mean square normalization of an image: y = γ · x / sqrt(mean(x²) + ε), the mean over (C, H, W).

    γ per channel, no shift. `nn.RMSNorm([C, H, W])` has a γ for every position. Source: Zhang & Sennrich 2019, "Root
    Mean Square Layer Normalization", equation 4.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        return rms_norm(x, 1, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.weight is not None}"


def rms_norm(x: torch.Tensor, groups: int, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    """(N, C, H, W), each image's channels in `groups` that share a root mean square; γ is (C,)."""
    squares = x.square().mean((2, 3)).view(len(x), groups, -1).mean(2)  # (N, groups)
    scale = (squares + eps).rsqrt().repeat_interleave(x.shape[1] // groups, 1)
    return x * (scale if weight is None else scale * weight)[:, :, None, None]


class FilterResponseNorm2d(nn.Module):
    """Filter response normalization with its threshold unit: y = max(γ · x / sqrt(ν² + ε) + β, τ), ν² = mean of x² over
    (H, W) for each image and channel; γ, β and the threshold τ per channel.

    Source: Singh & Krishnan 2020, "Filter Response Normalization Layer", equations 1 to 4. There the unit takes the
    place of ReLU; it starts as one, with τ = 0. On maps of one pixel y is about γ · sign(x) + β: the paper then learns
    ε, this layer does not.
    """

    def __init__(self, num_channels: int, *, eps: float = 1e-6, affine: bool = True, threshold: bool = True) -> None:
        super().__init__()
        self.num_channels, self.eps = num_channels, eps
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None
        self.tau = nn.Parameter(torch.zeros(num_channels)) if threshold else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        return filter_response_norm(x, self.weight, self.bias, self.tau, self.eps)

    def extra_repr(self) -> str:
        affine, threshold = self.weight is not None, self.tau is not None
        return f"{self.num_channels}, eps={self.eps}, affine={affine}, threshold={threshold}"


def filter_response_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, tau: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """(N, C, H, W); γ, β and τ are (C,), or None for 1, 0 and no threshold."""
    scale = (x.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    y = x * (scale if weight is None else scale * per_channel(weight))
    y = y if bias is None else y + per_channel(bias)
    return y if tau is None else torch.maximum(y, per_channel(tau))


class DynamicTanh2d(nn.Module):
    """Dynamic tanh: y = γ · tanh(α · x) + β, with one α for the layer and γ, β per channel; no statistics at all.

    Source: Zhu et al. 2025, "Transformers without Normalization", section 4.
    """

    def __init__(self, num_channels: int, *, alpha: float = 0.5, affine: bool = True) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.alpha = nn.Parameter(torch.tensor([alpha]))
        self.weight = nn.Parameter(torch.ones(num_channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """y of the shape of x: (N, C, H, W)."""
        return dynamic_tanh(x, self.alpha, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, affine={self.weight is not None}"


def dynamic_tanh(
    x: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    """(N, C, H, W); α is (1,) or (C,), γ and β are (C,), or None for 1 and 0."""
    y = torch.tanh(x * per_channel(alpha))
    y = y if weight is None else y * per_channel(weight)
    return y if bias is None else y + per_channel(bias)


def per_channel(values: torch.Tensor) -> torch.Tensor:
    """(C,) as it meets maps."""
    return values[:, None, None]
