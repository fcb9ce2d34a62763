"""A first look at a layer of one's own before training starts: can it be built, does it keep shapes?"""

import ast
import os
import traceback
from importlib.util import find_spec
from pathlib import Path

from normlab.errors import ConfigError
from normlab.settings.model import Norm
from normlab.settings.shape import NORM_CHANNELS

__all__ = ["check_custom"]


def check_custom(norm: Norm) -> None:
    """Raises `ConfigError`, in one line, where `norm.target` cannot serve as a normalization layer of the network.

    A name that is not there is seen without importing its module. Otherwise the layer's code runs: it is imported,
    built for every width of the network, and given maps of shape (2, C, 6, 6) behind a ReLU, in train mode with the way
    back, then in eval mode. It has to return them in their shape and type, and pass a gradient on.
    """
    assert norm.target is not None
    module_name, _, attribute = norm.target.partition(":")
    try:
        spec = find_spec(module_name)
    except Exception as error:  # find_spec imports the parent packages, and those may raise anything
        raise ConfigError(f"norm.target={norm.target}: importing {module_name} failed: {error}") from error
    if spec is None:
        raise ConfigError(
            f"norm.target={norm.target}: there is no module {module_name} here; "
            "write package.module:Class, as it would be imported from this folder"
        )
    if spec.origin and spec.origin.endswith(".py"):
        names = _bound_names(Path(spec.origin), norm.target)
        if names is not None and attribute not in names:
            classes = ", ".join(sorted(name for name in names if name[:1].isupper())) or "none"
            raise ConfigError(f"norm.target={norm.target}: {module_name} has no {attribute}; its classes: {classes}")
    _try_it(norm)


def _bound_names(file: Path, target: str) -> set[str] | None:
    """The names that a module binds at its top level; None where only running it can tell."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (OSError, SyntaxError, ValueError) as error:
        raise ConfigError(f"norm.target={target}: {file.name} cannot be read as Python: {error}") from error
    names: set[str] = set()
    for node in ast.walk(tree):  # not only the top: a name bound under `if` or `try` counts too
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
    return None if names & {"*", "__getattr__"} else names


def _try_it(norm: Norm) -> None:
    import torch  # a second: only for a layer that is there
    from torch.nn.parameter import is_lazy

    from normlab.norms import make_norm

    def refuse(reason: str) -> ConfigError:
        return ConfigError(f"norm.target={norm.target}: {reason}")

    stream = torch.Generator().manual_seed(0)
    for channels in sorted(set(NORM_CHANNELS)):
        try:
            layer = make_norm("custom", channels, norm.options, target=norm.target)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        if any(is_lazy(values) for values in (*layer.parameters(), *layer.buffers())):
            raise refuse("its parameters have no shape before it is called: build them from the number of channels")
        maps = torch.randn(2, channels, 6, 6, generator=stream).requires_grad_()
        asked = f"a batch of shape {tuple(maps.shape)}"
        for training in (True, False):
            mode = "train" if training else "eval"
            try:
                found = layer.train(training)(maps.relu())
                shape, kind = tuple(found.shape), found.dtype
                if training and found.requires_grad:
                    found.sum().backward()
            except Exception as error:  # a user's layer may raise anything
                raise refuse(f"{asked} raised {type(error).__name__} in {mode} mode{_told(error)}") from error
            if shape != tuple(maps.shape):
                raise refuse(f"turns shape {tuple(maps.shape)} into {shape} in {mode} mode: keep the shape")
            if kind != maps.dtype:
                raise refuse(f"turns {maps.dtype} into {kind}: keep the type")
        if maps.grad is None:
            raise refuse("passes no gradient to the layers before it: is there a detach or no_grad in its forward?")


def _told(error: Exception) -> str:
    """The first line of what an exception says; the line of code that raised it where it says nothing."""
    if line := next(iter(str(error).splitlines()), ""):
        return f": {line}"
    frames = traceback.extract_tb(error.__traceback__)
    at = next(frame for frame in reversed(frames) if f"{os.sep}torch{os.sep}" not in frame.filename)
    return f", without a message, at {Path(at.filename).name}:{at.lineno}: {at.line}"
