"""What the machine can do at best, and how much of it an image needs."""

import ctypes
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import nll_loss
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from normlab.kernels.compile import compiled, vectors
from normlab.nets import Net

HERE = Path(__file__).parent
ROUNDS = 2_000_000  # of 12 or 24 vectors: a few hundredths of a second
SIZE = 8192  # of a GPU's matrices: 1.1 TFLOP per product, with far more arithmetic than memory traffic
MEGABYTES = 256  # of a copy: more than any cache holds


def peak(threads: int, tries: int = 5, device: str = "cpu") -> float:
    """FLOP/s of the fastest of some tries: on a CPU of a loop of fused multiply-adds (FMA) in registers, on all threads
    at once; on a GPU of float32 matrix products."""
    if device != "cpu":
        a, b = torch.rand(SIZE, SIZE, device=device), torch.rand(SIZE, SIZE, device=device)
        return float(2 * SIZE**3 / _fastest(lambda: torch.mm(a, b), threads, tries, device))
    machine = vectors()
    file = compiled(HERE / "peak.cpp", {"LANES": str(machine.bits // 32), "REGISTERS": str(machine.registers)})
    if isinstance(file, str):
        raise SystemExit(f"the peak of this machine cannot be measured: {file}")
    functions = ctypes.CDLL(str(file))
    functions.multiply_add.argtypes, functions.multiply_add.restype = [ctypes.c_long], ctypes.c_float
    with ThreadPoolExecutor(threads) as pool:  # ctypes releases Python's lock
        seconds = _fastest(lambda: [*pool.map(functions.multiply_add, [ROUNDS] * threads)], threads, tries, device)
    return float(functions.flops_of_a_round() * ROUNDS * threads / seconds)


def bandwidth(threads: int, tries: int = 5, device: str = "cpu") -> float:
    """Bytes/s of the fastest of some copies in memory, what is read and what is written both counted."""
    a = torch.rand(MEGABYTES * 2**20 // 4, device=device)
    b = torch.empty_like(a)
    return float(2 * MEGABYTES * 2**20 / _fastest(lambda: b.copy_(a), threads, tries, device))


def _fastest(work: Any, threads: int, tries: int, device: str) -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    seconds = []
    for _ in range(tries + 1):  # the first one warms up
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(before)
    return min(seconds)


def flops_per_image(norm: str) -> float:
    """FLOP of the convolutions for one training image, forward and backward; a multiply-add is two, as in `peak`.

    The first convolution needs no gradient of its input. Norms, ReLU, pooling and augmentation are not counted: time
    spent on them shows as a lower share of the peak.
    """
    with FlopCounterMode(display=False) as counter:
        _forward_and_backward(norm, images=2)
    return float(counter.get_total_flops()) / 2


def bytes_per_image(norm: str) -> float:
    """Bytes that an image's forward and backward pass would move if no operation found its operands in a cache: every
    tensor that an operation reads or writes, weights left out."""
    with _Traffic() as small:
        _forward_and_backward(norm, images=8)
    with _Traffic() as large:
        _forward_and_backward(norm, images=24)
    return (large.bytes - small.bytes) / 16  # what does not grow with the batch cancels


def _forward_and_backward(norm: str, images: int) -> None:
    net = Net(norm).to(memory_format=torch.channels_last)
    loss = nll_loss(net(torch.rand(images, 1, 28, 28)), torch.arange(images) % 10)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's


class _Traffic(TorchDispatchMode):
    """Adds up the bytes of all tensors that go into operations and come out of them; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [v for v in (*tree_iter(args), *tree_iter(kwargs), *tree_iter(out)) if torch.is_tensor(v)]
            self.bytes += sum(v.numel() * v.element_size() for v in tensors)
        return out
