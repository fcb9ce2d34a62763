"""What the machine can do at best, and how much of it an image needs."""

import time

import torch
from torch.nn.functional import nll_loss
from torch.utils.flop_counter import FlopCounterMode

from normlab.nets import Net

SIZE = 2048  # of the matrices: 17 GFLOP a product, with far more arithmetic than memory traffic


def peak(threads: int, tries: int = 5) -> float:
    """FLOP/s of the fastest of some float32 matrix products: what fused multiply-adds (FMA) reach here in practice."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    seconds = []
    for _ in range(tries + 1):  # the first one warms up
        began = time.perf_counter()
        torch.mm(a, b)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return float(2 * SIZE**3 / min(seconds))


def flops_per_image(norm: str) -> float:
    """FLOP of the convolutions for one training image, forward and backward; a multiply-add is two, as in `peak`.

    The first convolution needs no gradient of its input. Norms, ReLU, pooling and augmentation are not counted: time
    spent on them shows as a lower share of the peak.
    """
    net, images, labels = Net(norm), torch.rand(2, 1, 28, 28), torch.tensor([0, 1])
    with FlopCounterMode(display=False) as counter:
        nll_loss(net(images), labels).backward()  # type: ignore[no-untyped-call]  # torch's
    return float(counter.get_total_flops()) / len(images)
