"""One run, without normlab: `python docs/naked.py gn --l1 1e-3 --seed 0 --mnist data/MNIST/raw`.

Everything that `python -m normlab.train norm=gn l1=1e-3 seed=0` does to a network is here, in the order in which it
happens, by torch alone. In float64 both end with the same weights, to rounding (tests/test_naked.py).
"""

import argparse
import gzip
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORMS = {  # each takes a number of channels; ε = 1e-5 everywhere
    "bn": nn.BatchNorm2d,  # statistics of a channel over the images of a batch; running averages (0.1) for the test
    "ln": lambda channels: nn.GroupNorm(1, channels),  # of an image
    "gn": lambda channels: nn.GroupNorm(2, channels),  # of half of an image's channels
}
BATCH, PEAK_LR, MOMENTUM, LONGEST_GRADIENT = 128, 0.1, 0.9, 1.0
ROTATION, SHIFT = 7.0, 2.0  # largest, either way: degrees and pixels
WEIGHTS, SPLIT, ORDER, AUGMENT = range(4)  # what random numbers are for


def stream(purpose: int, seed: int, epoch: int = 0) -> int:
    """Return the seed of the random numbers for one purpose in one epoch: no purpose moves another's."""
    return int(np.random.SeedSequence([seed, epoch, purpose]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def random(purpose: int, seed: int, epoch: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(stream(purpose, seed, epoch))


# Images: uint8 (N, 1, 28, 28), labels int64 (N,); for training and for the test


def mnist(folder: Path) -> list[Tensor]:
    parts = []
    for name, header in ("images-idx3", 16), ("labels-idx1", 8):
        for part in "train", "t10k":
            with gzip.open(folder / f"{part}-{name}-ubyte.gz") as file:
                parts.append(torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy()))
    return [*(pixels.view(-1, 1, 28, 28) for pixels in parts[:2]), *(labels.long() for labels in parts[2:])]


def digits() -> list[Tensor]:
    """scikit-learn's 1,797 digits of 8 x 8 pixels, as large as MNIST's; 500 of them are the test set."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    found = load_digits()
    small = np.rint(found.images * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(each).resize((28, 28), Image.Resampling.BILINEAR)) for each in small])
    places = train_test_split(range(len(small)), test_size=500, stratify=found.target, random_state=0)
    train, test = (np.sort(part) for part in places)
    pixels, labels = torch.from_numpy(large)[:, None], torch.from_numpy(found.target)
    return [pixels[train], pixels[test], labels[train], labels[test]]


def moved(images: Tensor, draws: Tensor) -> Tensor:
    """Return images (B, 1, 28, 28) rotated about their centre, then shifted, by draws (B, 3) in [-1, 1]; bilinear."""
    angle = draws[:, 0] * math.radians(ROTATION)
    cos, sin = angle.cos(), angle.sin()
    x, y = draws[:, 1:].T * (2 * SHIFT / 28)  # torch counts half an image as 1
    back = torch.stack([cos, -sin, -cos * x + sin * y, sin, cos, -sin * x - cos * y], 1).view(-1, 2, 3)
    grid = F.affine_grid(back, list(images.shape), align_corners=False)  # where each pixel comes from
    return F.grid_sample(images, grid, align_corners=False)


# The network: 7,614 parameters


def network(norm: str, seed: int) -> nn.Sequential:
    """Return the network with the weights of a seed, which are the same whatever the norm."""
    torch.manual_seed(stream(WEIGHTS, seed))
    blocks = [nn.Conv2d(*each, 3, bias=False) for each in ((1, 10), (10, 20), (10, 20), (20, 12), (12, 12))]
    squeeze, head = nn.Conv2d(20, 10, 1, bias=False), nn.Conv2d(12, 10, 1, bias=False)
    one, two, three, four, five = ([conv, nn.ReLU(), NORMS[norm](conv.out_channels)] for conv in blocks)
    pooled = [*one, *two, squeeze, nn.MaxPool2d(2), *three, *four, *five, nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*pooled, head, nn.Flatten(), nn.LogSoftmax(1))


# Training


def batches(size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield which images each step is for, and the draws that move them; the last step takes what is left."""
    order = torch.randperm(size, generator=random(ORDER, seed, epoch))
    draws = torch.rand(size, 3, generator=random(AUGMENT, seed, epoch)) * 2 - 1
    return zip(order.split(BATCH), draws.split(BATCH), strict=True)


def learning_rate(step: int, steps: int) -> float:
    """Return that of a step: up on a cosine from a 25th of the peak in 30 % of the steps, then down to almost 0."""
    top = 0.3 * steps - 1
    low, way = (1 / 25, 1 - step / top) if step <= top else (1 / 250_000, (step - top) / (steps - 1 - top))
    return PEAK_LR * (low + (1 - low) * (1 + math.cos(math.pi * way)) / 2)


def train(
    norm: str, l1: float, seed: int, epochs: int, data: list[Tensor], dtype: torch.dtype = torch.float32
) -> tuple[nn.Sequential, float]:
    """Return the trained network, and the share of test images that it gets right."""
    images, test_images, labels, test_labels = data
    held_out = min(5000, len(images) // 10)  # for validation, which is left out here
    own = torch.randperm(len(images), generator=random(SPLIT, seed))[held_out:].sort().values
    images, labels = images[own].to(dtype) / 255, labels[own]
    mean, std = images.double().mean().item(), images.double().std(correction=0).item()

    net = network(norm, seed).to(dtype)
    scales = [layer.weight for layer in net if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)]
    penalised = [layer.weight for layer in net if isinstance(layer, nn.Conv2d)] + scales
    optimizer = torch.optim.SGD(net.parameters(), lr=PEAK_LR, momentum=MOMENTUM, nesterov=True)
    steps = epochs * math.ceil(len(images) / BATCH)
    step = 0
    for epoch in range(epochs):
        for which, draws in batches(len(images), seed, epoch):
            pixels = (moved(images[which], draws.to(dtype)) - mean) / std
            optimizer.zero_grad()
            F.nll_loss(net(pixels), labels[which]).backward()
            for weight in penalised:  # the subgradient of l1 · Σ|w|
                weight.grad += l1 * weight.detach().sign()
            nn.utils.clip_grad_norm_(net.parameters(), LONGEST_GRADIENT)
            optimizer.param_groups[0]["lr"] = learning_rate(step, steps)
            optimizer.step()
            step += 1
        print(f"epoch {epoch + 1} of {epochs}", flush=True)

    net.eval()  # batch norm: running averages from here on
    with torch.no_grad():
        found = [net((part.to(dtype) / 255 - mean) / std).argmax(1) for part in test_images.split(1000)]
    return net, (torch.cat(found) == test_labels).double().mean().item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("norm", choices=NORMS)
    parser.add_argument("--l1", type=float, default=0.0, help="λ of the penalty λ·Σ|w|")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument(
        "--mnist", type=Path, help="the folder of MNIST's four .gz files; without it: scikit-learn's digits"
    )
    given = parser.parse_args()
    data = mnist(given.mnist) if given.mnist else digits()
    print(f"{100 * train(given.norm, given.l1, given.seed, given.epochs, data)[1]:.2f} % of the test images")
