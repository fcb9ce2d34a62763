"""Your own layers and images: a first look at a layer before training, the digests of its code and of a folder."""

import hashlib
import os
import sys
import traceback
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from normlab.errors import ConfigError, first_line
from normlab.norms import load_class
from normlab.settings.shape import NORM_CHANNELS

if TYPE_CHECKING:
    from normlab.settings.model import Settings
    from normlab.settings.parts import Norm

_seen: dict[str, tuple[ModuleSpec | None, str]] = {}  # module: how this process imported it, digest of its file then


def source_digest(target: str | None) -> str | None:
    """Return sha256 over the file that defines a "package.module:Class"; None where there is no such file.

    Of a module that this process has imported, the file as it was then: what runs, whatever was edited since.
    """
    name = (target or "").partition(":")[0]
    spec, module = _spec(name), sys.modules.get(name)
    before, digest = _seen.get(name, (None, None))
    if module is None or digest is None or (before is not None and before is not spec):
        digest = _digest(spec)
    if digest is not None:
        _seen[name] = (spec if module else None), digest
    return digest


def files_digest(root: str) -> str | None:
    """Return sha256 over the names and sizes of the files that data=folder reads; None where there is no such folder.

    Hidden files are left out, and what lies beside train and test, or beside idx files.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        return None
    parts = [folder / name for name in ("train", "test", "val") if (folder / name).is_dir()]
    apart = len(parts) > 1 and parts[0].name == "train"
    found = []
    for part in parts if apart else [folder]:
        for place, _, names in os.walk(part, followlinks=True):
            paths = (Path(place, name) for name in names if not name.startswith("."))
            found += [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths if path.is_file()]
    found = [each for each in found if "ubyte" in each[0]] or found
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()


def edited(settings: "Settings") -> str | None:
    """Return, in one line, that the code of the run's own layer or network has changed since it was imported; None
    where it has not."""
    for part, where in ((settings.norm, "norm.target"), (settings.net, "net.target")):
        if part.source and part.source != _digest(_spec((part.target or "").partition(":")[0])):
            return f"{where}={part.target} was edited since it was imported: these runs are of the code before that"
    return None


def _spec(module: str) -> ModuleSpec | None:
    try:
        return find_spec(module) if module else None
    except Exception:  # it imports the parent packages, and those may raise anything
        return None


def _digest(spec: ModuleSpec | None) -> str | None:
    try:
        return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else None
    except OSError:
        return None


def check_custom(norm: "Norm") -> None:
    """Raise `ConfigError`, in one line, where `norm.target` cannot serve as a normalization layer of the network.

    The layer's code runs: it is imported, built for every width of the small network, and given maps of shape
    (2, C, 6, 6) behind a ReLU, forward and backward in train mode, then in eval mode. It has to return them in their
    shape and type, and pass a gradient on.
    """

    def refuse(reason: str) -> ConfigError:
        return ConfigError(f"norm.target={norm.target}: {reason}")

    source_digest(norm.target)  # of the file that is imported now
    try:
        load_class(norm.target or "")
    except ValueError as error:
        raise ConfigError(str(error)) from error

    import torch  # a second: only for a layer that is there
    from torch.nn.parameter import is_lazy

    from normlab.norms import make_norm

    stream = torch.Generator().manual_seed(0)
    for channels in sorted(set(NORM_CHANNELS)):
        try:
            layer = make_norm("custom", channels, norm.options, target=norm.target)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if any(is_lazy(values) for values in (*layer.parameters(), *layer.buffers())):
            raise refuse("its parameters have no shape before it is called: build them from the number of channels")
        maps = torch.randn(2, channels, 6, 6, generator=stream).requires_grad_()
        batch = f"a batch of shape {tuple(maps.shape)}"
        for training in (True, False):
            mode = "train" if training else "eval"
            try:
                y = layer.train(training)(maps.relu())
                shape, kind = tuple(y.shape), y.dtype
                if training and y.requires_grad:
                    y.sum().backward()
            except Exception as error:  # a user's layer may raise anything
                raise refuse(f"{batch} raised {type(error).__name__} in {mode} mode{_reason(error)}") from error
            if shape != tuple(maps.shape):
                raise refuse(f"turns shape {tuple(maps.shape)} into {shape} in {mode} mode: keep the shape")
            if kind != maps.dtype:
                raise refuse(f"turns {maps.dtype} into {kind}: keep the type")
        if maps.grad is None:
            raise refuse("passes no gradient to the layers before it: is there a detach or no_grad in its forward?")


def _reason(error: Exception) -> str:
    """The first line of an exception's message; the line of code that raised it where there is none."""
    if str(error).strip():
        return f": {first_line(error)}"
    frames = traceback.extract_tb(error.__traceback__)
    at = next(frame for frame in reversed(frames) if f"{os.sep}torch{os.sep}" not in frame.filename)
    return f", without a message, at {Path(at.filename).name}:{at.lineno}: {at.line}"
