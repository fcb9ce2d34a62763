"""What a run computes on: whether it is there, and what it is called."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from normlab.settings import Settings

__all__ = ["choose_accelerator", "describe_device", "missing_device", "set_threads", "versions"]


def missing_device(accelerator: str, devices: int) -> str | None:
    """Why this machine cannot give the accelerator that is asked for, in one line; None where it can."""
    if accelerator == "gpu" and not torch.cuda.is_available():
        return "accelerator=gpu, but torch finds no GPU on this machine: use accelerator=cpu or auto"
    if devices > 1 and choose_accelerator(accelerator) == "gpu" and torch.cuda.device_count() < devices:
        return f"devices={devices}, but this machine has {torch.cuda.device_count()}: use devices=1 or accelerator=cpu"
    return None


def choose_accelerator(asked: str) -> str:
    """ "gpu" or "cpu": what auto means on this machine."""
    return "gpu" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def set_threads(settings: Settings) -> None:
    """Set the CPU threads of this process: `threads`, or its share of what the process has. `restore_process` puts them
    back after each run."""
    torch.set_num_threads(settings.threads or max(1, torch.get_num_threads() // settings.devices))


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
