"""What training computes, written as a plain loop: the reference of every other way to train."""

import math

import torch
from torch.nn.functional import nll_loss

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import ImageData
from normlab.nets import Net, penalised
from normlab.randomness import Stream, generator, stream_seed
from normlab.settings import Settings


def by_hand(settings: Settings, data: ImageData | None = None) -> Net:
    """The network after training in float64: autograd through the whole loss, no Lightning, only parts are shared."""
    if data is None:
        images = {"batch_size": settings.batch_size, "train_size": settings.train_size, "seed": settings.seed}
        data = ImageData(settings.data.name, rotation=0, shift=0, **images)
        data.setup()
    torch.manual_seed(stream_seed(Stream.WEIGHTS, settings.seed))
    norm, augment, chosen = settings.norm, settings.augment, settings.optimizer
    net = Net(norm.name, settings.dropout, settings.placement, norm.options, settings.weight_standardization)
    net = net.double().to(memory_format=torch.channels_last)  # dropout draws its masks in the order of memory
    decay = chosen.weight_decay
    peak = settings.lr if settings.lr_per is None else settings.lr * settings.batch_size / settings.lr_per
    if chosen.name == "adamw":
        optimizer = torch.optim.AdamW(net.parameters(), peak, tuple(chosen.betas), chosen.eps, weight_decay=decay)
    else:
        nesterov = chosen.momentum > 0
        optimizer = torch.optim.SGD(net.parameters(), peak, chosen.momentum, weight_decay=decay, nesterov=nesterov)
    steps = math.ceil(len(data.train) / settings.batch_size) * settings.epochs
    if settings.schedule == "onecycle":
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, cycle_momentum=False)
    else:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    covered = list(penalised(net, settings.penalty.scope).values())
    for epoch in range(settings.epochs):
        torch.manual_seed(stream_seed(Stream.DROPOUT, settings.seed, epoch))
        order = torch.randperm(len(data.train), generator=generator(Stream.ORDER, settings.seed, epoch))
        draws = torch.rand(len(data.train), 3, generator=generator(Stream.AUGMENT, settings.seed, epoch)) * 2 - 1
        draws = draws.double()
        for where in order.split(settings.batch_size):
            pixels = data.train.images[where].double() / 255
            if augment.rotation:
                rows, draws = draws[: len(where)], draws[len(where) :]
                pixels = rotate_and_shift(pixels, rows, rotation=augment.rotation, shift=augment.shift)
            pixels = (pixels - data.mean) / data.std
            loss = nll_loss(net(pixels), data.train.labels[where])
            if settings.penalty.method == "subgradient":
                loss = loss + settings.l1 * sum(w.abs().sum() for w in covered)
            optimizer.zero_grad()
            loss.backward()
            if settings.gradient_clip is not None:
                norm = torch.stack([w.grad.square().sum() for w in net.parameters() if w.grad is not None]).sum().sqrt()
                for w in net.parameters():
                    w.grad *= min(1.0, settings.gradient_clip / (norm.item() + 1e-6))
            optimizer.step()
            if settings.penalty.method == "proximal":
                for w in covered:
                    threshold = schedule.get_last_lr()[0] * settings.l1
                    if chosen.name == "adamw":
                        state = optimizer.state[w]
                        mean_square = state["exp_avg_sq"] / (1 - chosen.betas[1] ** state["step"].item())
                        threshold = threshold / (mean_square.sqrt() + chosen.eps)
                    else:
                        threshold = threshold / (1 - chosen.momentum)
                    w.data = w.data.sign() * (w.data.abs() - threshold).clamp(min=0)
            schedule.step()
    return net
