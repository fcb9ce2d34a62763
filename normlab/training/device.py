"""What a run computes on: whether it is there, and what it is called."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["choose_accelerator", "describe_device", "missing_device", "versions"]


def missing_device(accelerator: str, devices: int) -> str | None:
    """Why this machine cannot give the accelerator that is asked for, in one line; None where it can."""
    if accelerator != "gpu":
        return None
    if not torch.cuda.is_available():
        return "accelerator=gpu, but torch finds no GPU on this machine: use accelerator=cpu or auto"
    if torch.cuda.device_count() < devices:
        return f"devices={devices}, but this machine has {torch.cuda.device_count()}"
    return None


def choose_accelerator(asked: str) -> str:
    """ "gpu" or "cpu": what auto means on this machine."""
    return "gpu" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def describe_device(device: torch.device) -> dict[str, Any]:
    """For result.json: accelerator, name, CPU threads."""
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else _cpu_name()
    return {"accelerator": "gpu" if gpu else "cpu", "name": name, "threads": torch.get_num_threads()}


def _cpu_name() -> str:
    """Linux keeps the name where `platform` does not look."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """For result.json: what the numbers were made with."""
    found = {"python": platform.python_version()}
    for package in ("normlab", "torch", "lightning", "torchmetrics", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found
