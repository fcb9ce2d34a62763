"""H: many networks fused the usual way: `python -m benchmarks.hfta --array 24 --norm gn`.

What HFTA (Wang et al. 2021) does to a network, written plainly: every convolution becomes one with K groups, every norm
one over K times the channels, in torch's default memory layout, with torch's optimizer over the fused weights. Cheaper
than normlab's array in all else: images are not augmented, nothing is measured or written, and all networks share one
learning rate. Nothing of normlab's training is used.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.clock import BATCH, Clock
from benchmarks.samples import cut
from normlab.data.sources import load

NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "bn": lambda networks, channels: nn.BatchNorm2d(networks * channels),
    "ln": lambda networks, channels: nn.GroupNorm(networks, networks * channels),
    "gn": lambda networks, channels: nn.GroupNorm(networks * 2, networks * channels),
}


def fused(networks: int, norm: str) -> nn.Sequential:
    """K networks as one: images (B, K, 28, 28) to scores (B, 10 · K, 1, 1)."""

    def conv(in_channels: int, out_channels: int, size: int) -> nn.Conv2d:
        return nn.Conv2d(networks * in_channels, networks * out_channels, size, groups=networks, bias=False)

    def block(in_channels: int, out_channels: int) -> list[nn.Module]:
        return [conv(in_channels, out_channels, 3), nn.ReLU(), NORMS[norm](networks, out_channels)]

    layers = [*block(1, 10), *block(10, 20), conv(20, 10, 1), nn.MaxPool2d(2)]
    layers += [*block(10, 20), *block(20, 12), *block(12, 12), nn.AdaptiveAvgPool2d(1), conv(12, 10, 1)]
    return nn.Sequential(*layers)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="One epoch of fused networks; prints when their steps ended.")
    parser.add_argument("--norm", choices=NORMS, default="bn")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--images", type=int, default=100 * BATCH, help="training images of each network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--array", type=int, default=24, help="networks")
    args = parser.parse_args(arguments)

    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if args.accelerator == "gpu" else "cpu")
    clock = Clock(args.batch * args.array)
    part = cut(load(args.data), args.images, 1)
    images = (torch.from_numpy(part.train_images).float() / 255).to(device)
    labels = torch.from_numpy(part.train_labels).long().to(device)
    net = fused(args.array, args.norm).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    orders = torch.stack([torch.randperm(args.images) for _ in range(args.array)]).to(device)
    for begin in range(0, args.images - args.batch + 1, args.batch):
        where = orders[:, begin : begin + args.batch].T  # (B, K)
        scores = net(images[where]).view(args.batch * args.array, 10)
        loss = args.array * F.cross_entropy(scores, labels[where].flatten())  # the sum of the networks' losses
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    clock.print()


if __name__ == "__main__":
    main()
