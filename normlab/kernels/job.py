"""What Python tells the kernels: the structures of job.h, and which norms are native."""

import ctypes
from typing import Any

import torch
from torch import nn

from normlab.norms import is_packaged
from normlab.norms.about import ROOT_MEAN_SQUARE, STANDARDISED, About

BLOCKS = 5
HEAD, LAST = BLOCKS, 2 * BLOCKS  # phases, see step.cpp
NONE, IMAGE, BATCH, OUTSIDE = range(4)  # kinds of norms, see norms.h
OVER = {"HW": IMAGE, "GHW": IMAGE, "CHW": IMAGE, "NHW": BATCH, "VHW": BATCH}  # the axes that a statistic is of
GET_R, SET_Y, GET_D, SET_D = range(4)
OF_BATCH = 2**62  # images of a ghost batch that is the whole batch
NUMBERS = {torch.float32: "float", torch.float64: "double"}


class Norm(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "groups", "centred", "ghost")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("weight", "bias")),
        *((name, ctypes.c_void_p) for name in ("mean", "var", "tracked")),
        ("momentum", ctypes.c_double),
        ("drops", ctypes.c_int64),
    )


class Job(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("networks", "images", "parameters", "training", "pre", "threads")),
        ("conv", ctypes.c_int64 * BLOCKS),
        *((name, ctypes.c_int64) for name in ("squeeze", "head")),
        ("norms", Norm * BLOCKS),
        *((name, ctypes.c_void_p) for name in ("rows", "grads", "pixels", "pool", "where", "turns")),
        *((name, ctypes.c_double) for name in ("rotation", "shift")),
        *((name, ctypes.c_void_p) for name in ("mean", "sd", "labels", "log_probs")),
        ("share", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("rates", "seeds")),
        ("step", ctypes.c_uint64),
    )


def kind_of(layer: nn.Module) -> int:
    """How the kernels compute a norm: by its description in the catalogue."""
    if not is_packaged(layer):
        return OUTSIDE
    about = about_of(layer)
    if about.formula == "x" or about.conv:
        return NONE
    if about.formula not in (STANDARDISED, ROOT_MEAN_SQUARE) or any(own.shape != "C" for own in about.learned.values()):
        return OUTSIDE
    return OVER.get(" ".join(about.axes), OUTSIDE)


def about_of(layer: Any) -> About:
    return layer.about  # type: ignore[no-any-return]
