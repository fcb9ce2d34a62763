"""How many networks share one forward pass: as many as are fastest, within the memory."""

import copy
import math

import torch

from normlab.nets import Network

__all__ = ["IMAGES_A_PASS", "bytes_per_image", "networks_at_once"]

IMAGES_A_PASS = 64  # on CPU: below it Python's share of the time shows, above it caches overflow (benchmarks/study.py)
GIB = 2**30


def networks_at_once(
    net: Network, batch_size: int, networks: int, device: torch.device, memory_limit: float | None = None
) -> int:
    """Return how many of the networks go through one forward and backward pass together: at least 1.

    On CPU as many as make `IMAGES_A_PASS` images; on a GPU all of them, since it is never busy enough. Both within
    `memory_limit` (GiB; None: half of a GPU's memory), by what the pass keeps for its way back. What happens to be free
    does not count: the last bits of a result may depend on this number.
    """
    wanted = networks if device.type == "cuda" else -(-IMAGES_A_PASS // batch_size)
    if memory_limit is not None:
        limit = memory_limit * GIB
    elif device.type == "cuda":
        limit = torch.cuda.mem_get_info(device)[1] / 2
    else:
        limit = math.inf
    fits = min(networks, limit / (bytes_per_image(net) * batch_size))
    return max(1, min(wanted, int(fits)))


def bytes_per_image(net: Network) -> float:
    """Return what a training step of a network needs beyond its weights, in bytes per image.

    Everything that autograd keeps for the backward pass, measured on two images, and half as much again for what is
    alive in between.
    """
    kept: dict[int, int] = {}

    def note(values: torch.Tensor) -> torch.Tensor:
        kept[values.untyped_storage().data_ptr()] = values.untyped_storage().nbytes()
        return values

    net = copy.deepcopy(net).train()  # running statistics stay as they are
    first = next(net.parameters())
    images = torch.zeros(2, *net.image, dtype=first.dtype, device=first.device)
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(note, lambda values: values):
        net(images.contiguous(memory_format=torch.channels_last))
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    return 1.5 * sum(size for where, size in kept.items() if where not in weights) / len(images)
