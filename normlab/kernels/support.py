"""Whether the kernels train a network, and why not."""

import logging
from functools import cache

import torch
from torch import nn

from normlab.kernels.compile import library
from normlab.nets.net import Net
from normlab.norms.layer import over_processes
from normlab.settings import Settings

log = logging.getLogger("normlab")

NUMBERS = {torch.float32: "float", torch.float64: "double"}  # what the kernels compute with


def unsupported(net: nn.Module) -> str | None:
    """Return why a network is not trained by the kernels, in one line; None if it can be, given a compiler."""
    if type(net) is not Net:
        return "the kernels know net=small only"
    first = next(net.parameters())
    if first.dtype not in NUMBERS or first.device.type != "cpu":
        return f"the kernels compute in float32 on the CPU, not in {str(first.dtype)[6:]} on {first.device.type}"
    if "fit" in dict(net.named_children()):
        return "the kernels do not scale images to another size"
    layers = [net.get_submodule(name) for name in net.norms]
    if any(over_processes(getattr(layer, "running", layer)) for layer in layers):
        return "the kernels take the statistics of one process"
    return None


def why_torch(settings: Settings, net: nn.Module) -> str | None:
    """Return why torch computes a run's steps on a CPU, in one line; None where the kernels do.

    The library is compiled if it is not there, and a warning says so, once per process, where it cannot be.
    """
    if settings.kernels == "torch":
        return "kernels=torch"
    if settings.devices > 1:
        return "the kernels train on one device"
    if settings.precision not in ("32-true", "tf32"):
        return "the kernels compute in float32"
    if reason := unsupported(net):
        return reason
    assert isinstance(net, Net)
    found = library(*shape_of(net))
    return _say_slower(found) if isinstance(found, str) else None


def shape_of(net: Net) -> tuple[int, int, tuple[int, int]]:
    channels, height, width = net.image
    return channels, net.num_classes, (height, width)


@cache
def _say_slower(reason: str) -> str:
    log.warning("normlab: torch trains, slower than the kernels would: %s", reason)
    return reason
