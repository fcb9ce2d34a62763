"""Probes of a network that was trained before: its last checkpoint, on the images that its run had."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ValidationError

from normlab.data.augment import rotate_and_shift
from normlab.data.datamodule import Batch, ImageData, epoch_draws, epoch_order
from normlab.errors import ConfigError, NormlabError
from normlab.nets import Network
from normlab.probes.layers import layer_statistics
from normlab.probes.loss import StepLoss, gradient
from normlab.randomness import Stream, stream_seed
from normlab.record import ProbeRow, Record, read_probes, write_probes
from normlab.settings import Settings
from normlab.training.build import initial_model
from normlab.training.classifier import foreign_code
from normlab.training.probe_callbacks import first_images, landscape_values, shift_values
from normlab.training.process import restore_process
from normlab.training.statistics_probe import statistics_values

__all__ = ["probe_checkpoint"]


@restore_process()
def probe_checkpoint(folder: Path, probes: Sequence[str], targets: Sequence[str] = ()) -> list[ProbeRow]:
    """Measures the network of last.ckpt on the CPU, leaves the rows in the run's probes.csv and returns them.

    The batch of `landscape` and `shift` is the first that one more epoch would bring, augmented as that would be, with
    its dropout. There is no step from which W(t+1) could be had: `shift` takes a plain one, W - lr·∇L, with the run's
    peak learning rate. In probes.csv the rows take the place of those of the same probe at the same step, which an
    earlier call left or, for `layers`, the end of training; all others stay.

    targets: the layer of a run with norm=custom, and other code that its network has. No file says what code is run:
    the caller does.

    Raises `NormlabError`, in one line, where the folder holds no run, no checkpoint or images are missing.
    """
    settings, data, net, step = _trained(folder, targets)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)  # the last bits are those of training
    epoch = step / -(-len(data.train) // settings.batch_size)
    rows: list[ProbeRow] = []
    if "layers" in probes:
        values = layer_statistics(net, *first_images(data, net))
        rows += [(epoch, step, "layers", *value) for value in values]
    if "landscape" in probes or "shift" in probes:
        torch.manual_seed(stream_seed(Stream.DROPOUT, settings.seed, round(epoch)))
        loss = StepLoss(net, *_next_batch(settings, data, net, round(epoch)))
        weights, lr = loss.weights, settings.peak_lr
        if "landscape" in probes:
            rows += [(epoch, step, "landscape", *value) for value in landscape_values(loss, weights, lr)]
        if "shift" in probes:
            _, found = gradient(loss, weights)
            after = {name: values - lr * found[name] for name, values in weights.items()}
            rows += [(epoch, step, "shift", *value) for value in shift_values(loss, net, weights, after)]
    if "statistics" in probes:
        rows += [(epoch, step, "statistics", *value) for value in statistics_values(net, data)]
    kept = [row for row in read_probes(folder) if row[1] != step or row[2] not in probes]
    try:
        write_probes(folder, [*kept, *rows])
    except OSError as error:
        raise NormlabError(f"{folder}: nothing can be written there ({error.strerror}): copy the run") from None
    return rows


def _trained(folder: Path, targets: Sequence[str]) -> tuple[Settings, ImageData, Network, int]:
    """Return a run's settings, its images, its network after the last epoch that was saved, the number of its steps."""
    record = Record.find(folder)
    if record is None:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    file = folder / "last.ckpt"
    if not file.is_file():
        raise NormlabError(f"{folder} holds no last.ckpt: train its run again with force=true")
    # before the settings are read, which looks for the code that they name
    if foreign := foreign_code([record.config.get("norm"), record.config.get("net")], targets):
        named = " ".join(f"--target {each}" for each in foreign)
        raise ConfigError(f"{folder} was trained with code of its own, which would run: name it, as in {named}")
    try:
        settings = Settings.model_validate(dict(record.config))
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
        raise ConfigError(f"{folder}/result.json: {told}: train its run again with force=true") from None
    data = ImageData.of(settings)
    data.setup()
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        step = int(found["global_step"])
        model = initial_model(settings, data)
        if settings.precision == "64-true":
            model.double()
        model.load_state_dict(found["state_dict"])
    except Exception as error:  # a damaged file, or a user's own norm that is not there any more, may raise anything
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise NormlabError(f"{file} cannot be loaded ({told}): train its run again with force=true") from None
    return settings, data, model.net, step


def _next_batch(settings: Settings, data: ImageData, net: Network, epoch: int) -> Batch:
    """The first training batch of an epoch."""
    where = data.train.where[epoch_order(len(data.train), settings.seed, epoch)[: settings.batch_size]]
    pixels = data.train.pool[0][where].to(next(net.parameters()).dtype) / 255
    if data.rotation or data.shift:
        draws = epoch_draws(len(data.train), settings.seed, epoch)[: len(where)].to(pixels)
        pixels = rotate_and_shift(pixels, draws, rotation=data.rotation, shift=data.shift)
    return (pixels - data.mean) / data.std, data.train.pool[1][where]
