"""What a finished run's last checkpoint shows: its probes, and its scores on corrupted test images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from rich.console import Console

from normlab.data.datamodule import epoch_draws, epoch_order
from normlab.errors import ConfigError, NormlabError
from normlab.probes.gradients import StepLoss, gradient
from normlab.probes.layers import Value
from normlab.randomness import Stream, stream_seed
from normlab.record import ProbeRow, Record, Robustness, read_probes, read_robustness, write_probes, write_robustness
from normlab.settings import Settings, line, needs_gpu
from normlab.settings.arrays import key
from normlab.settings.corruptions import Corrupted
from normlab.training.build import load_images
from normlab.training.classifier import foreign_code
from normlab.training.device import restore_process, set_threads
from normlab.training.fit import corrupted_scores
from normlab.training.folder import log_to
from normlab.training.networks import Member
from normlab.training.probes import landscape_values, layers_values, shift_values, statistics_values
from normlab.training.trained import trained


@restore_process()
def probe_checkpoint(folder: Path, probes: Sequence[str], targets: Sequence[str] = ()) -> list[ProbeRow]:
    """Measure the network of last.ckpt on the CPU, write the rows to the run's probes.csv and return them.

    The batch of `landscape` and `shift` is the first that one more epoch would bring, augmented as that would be, with
    its dropout. There is no step from which W(t+1) could be had: `shift` takes a plain one, W - lr·∇L, with the run's
    peak learning rate. In probes.csv the rows take the place of those of the same probe at the same step, which an
    earlier call left or, for `layers`, the end of training; all others stay.

    targets: the layer of a run with norm=custom, and other code that its network has. No file says what code is run:
    the caller does.

    Raise `NormlabError`, in one line, where the folder holds no run, no checkpoint or images are missing.
    """
    settings = _settings_of(folder, targets)
    [data] = load_images([settings])
    net = trained(folder, targets=targets).net
    step = int(torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["global_step"])
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)  # the last bits are those of training
    size, seed = len(data.train), settings.seed
    done = step / settings.steps_per_epoch(size)
    epoch = round(done)
    values: dict[str, list[Value]] = {}
    if "layers" in probes:
        values["layers"] = layers_values(net, data)
    if "landscape" in probes or "shift" in probes:
        torch.manual_seed(stream_seed(Stream.DROPOUT, seed, epoch))
        first = epoch_order(size, seed, epoch)[: settings.batch_size]
        loss = StepLoss(net, *data.inputs(data.train, first, net, epoch_draws(size, seed, epoch)[: len(first)]))
        weights, lr = loss.weights, settings.peak_lr
        if "landscape" in probes:
            values["landscape"] = landscape_values(loss, weights, lr)
        if "shift" in probes:
            _, found = gradient(loss, weights)
            after = {name: numbers - lr * found[name] for name, numbers in weights.items()}
            values["shift"] = shift_values(loss, net, weights, after)
    if "statistics" in probes:
        values["statistics"] = statistics_values(net, data)
    rows: list[ProbeRow] = [(done, step, probe, *value) for probe, own in values.items() for value in own]
    kept = [row for row in read_probes(folder) if row[1] != step or row[2] not in probes]
    try:
        write_probes(folder, [*kept, *rows])
    except OSError as error:
        raise _cannot_write(folder, error) from None
    return rows


def evaluate_checkpoints(
    folders: Sequence[Path], kinds: Sequence[Corrupted], targets: Sequence[str] = (), console: Console | None = None
) -> Iterator[tuple[Path, list[Robustness] | NormlabError]]:
    """Score the networks of runs on corrupted test images, on the CPU, with the bits that they get at the end of
    training there. Write the rows to each run's robustness.csv, where rows of other kinds stay. Yield each folder with
    its rows, or with what prevents it, in one line.

    Runs of one shape are scored together: their images are made once. targets: as in `probe_checkpoint`.
    """
    groups: dict[str, list[tuple[Path, Settings]]] = {}
    for folder in folders:
        try:
            settings = _settings_of(folder, targets)
            read_robustness(folder)
        except NormlabError as error:
            yield folder, error
            continue
        precision = "32-true" if needs_gpu(settings.precision) else settings.precision
        settings = settings.model_copy(update={"accelerator": "cpu", "precision": precision})
        groups.setdefault(key(settings.model_copy(update={"evaluate": []})), []).append((folder, settings))
    for group in groups.values():
        yield from _evaluated(group, kinds, targets, console or Console(quiet=True))


@restore_process()
def _evaluated(
    group: Sequence[tuple[Path, Settings]], kinds: Sequence[Corrupted], targets: Sequence[str], console: Console
) -> list[tuple[Path, list[Robustness] | NormlabError]]:
    found: list[tuple[Path, list[Robustness] | NormlabError]] = []
    settings = [each for _, each in group]
    set_threads(settings[0])
    try:
        data = load_images(settings)
    except NormlabError as error:
        return [(folder, error) for folder, _ in group]
    members: dict[Path, Member] = {}
    for (folder, own), images in zip(group, data, strict=True):
        try:
            members[folder] = Member(own, images, trained(folder, targets=targets))
        except NormlabError as error:
            found.append((folder, error))
    with log_to():  # what Lightning would say of itself
        scores = corrupted_scores([*members.values()], kinds, settings[0].norm.name, console) if members else []
    for folder, rows in zip(members, scores, strict=True):
        kept = [row for row in read_robustness(folder) if row.kind not in ("clean", *kinds)]
        try:
            write_robustness(folder, [*rows, *kept])
            found.append((folder, rows))
        except OSError as error:
            found.append((folder, _cannot_write(folder, error)))
    return found


def _cannot_write(folder: Path, error: OSError) -> NormlabError:
    return NormlabError(f"{folder}: nothing can be written there ({error.strerror}): copy the run")


def _settings_of(folder: Path, targets: Sequence[str]) -> Settings:
    """Return the settings of a run with a checkpoint."""
    record = Record.find(folder)
    if record is None:
        raise NormlabError(f"{folder} holds no run (no result.json in it): python -m normlab.train makes one")
    if not (folder / "last.ckpt").is_file():
        raise NormlabError(f"{folder} holds no last.ckpt: train its run again with force=true")
    # before the settings are read, which looks for the code that they name
    if foreign := foreign_code([record.config.get("norm"), record.config.get("net")], targets):
        named = " ".join(f"--target {each}" for each in foreign)
        raise ConfigError(f"{folder} was trained with code of its own, which would run: name it, as in {named}")
    try:
        return Settings.model_validate(dict(record.config))
    except ValidationError as error:
        raise ConfigError(f"{folder}/result.json: {line(error)}: train its run again with force=true") from None
