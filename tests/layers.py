"""Layers of a user's own, and what can be wrong with one: `norm.target=layers:Name`, this folder being on the path."""

import inspect
import os
import signal
from pathlib import Path

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, num_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels, 1, 1))

    def forward(self, x):
        return self.weight * x


class InPlace(Layer):
    def forward(self, x):
        return self.weight * x.sub_(x.mean((2, 3), keepdim=True))


class Detached(Layer):
    def forward(self, x):
        return self.weight * x.detach()


class TrainsOnly(Layer):
    def forward(self, x):
        if not self.training:
            raise KeyError("running_mean")
        return self.weight * x


class EvalFlat(Layer):
    def forward(self, x):
        return self.weight * x if self.training else x.flatten(1)


class Doubles(Layer):
    def forward(self, x):
        return (self.weight * x).double()


class Counts(Layer):
    def __init__(self, num_channels):
        super().__init__(num_channels)
        self.calls = 0
        self.register_buffer("seen", torch.tensor([float("inf"), 0.0]))

    def forward(self, x):
        self.calls += 1
        self.seen[1] = self.calls
        return self.weight * x


class Mute(Layer):
    def forward(self, x):
        assert x.shape[1] % 32 == 0
        return x


class Fits(Layer):
    def forward(self, x):
        return self.weight * x * (x.square().mean((1, 2, 3), keepdim=True) + 1e-5).rsqrt()


class Branches(Fits):
    """Looks at its values, which torch.func does not allow."""

    def forward(self, x):
        return super().forward(x) if x.mean() > 0 else x


class Draws(Fits):
    """Random numbers of its own: beside a copy of itself it draws others."""

    def forward(self, x):
        return super().forward(x) + torch.randn_like(x)


class Remembers(Fits):
    """Keeps a value where no buffer is."""

    last = 1.0

    def forward(self, x):
        y = super().forward(x) * self.last
        self.last = self.last + 0.5
        return y


class KillsArray(Fits):
    """Ends the process that trains it as an array, and only that."""

    def forward(self, x):
        tried = len(x) == 4  # when an array is planned
        if os.environ.get("KILL") and not tried and any(each.function == "run_array" for each in inspect.stack(0)):
            os._exit(9)
        return super().forward(x)


class OneGroup(nn.GroupNorm):
    def __init__(self, num_channels):
        super().__init__(1, num_channels)


class Late(OneGroup):
    def forward(self, x):
        if len(x) > 8:  # not where it is tried out, on few images
            raise RuntimeError("too many images")
        return super().forward(x)


class DiesInAJob(OneGroup):
    def forward(self, x):
        if self.training and os.environ.get("SLURM_JOB_ID") and len(x) > 4:
            os._exit(9)
        return super().forward(x)


class DiesOnASecondDevice(OneGroup):
    def __init__(self, num_channels, killed):
        super().__init__(num_channels)
        self.killed = killed

    def forward(self, x):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("not here")
        return super().forward(x)


class Kills(OneGroup):
    """Ends the process that trains it at a step: at the first one always, else once in a folder."""

    def __init__(self, num_channels, step):
        super().__init__(num_channels)
        self.step, self.left = step, step

    def forward(self, x):
        if self.training and len(x) > 8:  # not where it is tried out
            self.left -= 1
            once = Path("killed")
            if self.left < 0 and (self.step == 1 or not once.exists()):
                self.step == 1 or once.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)
