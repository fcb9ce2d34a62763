"""Rules about one setting: is it what its name says, and can it learn at all? Some are of the small network only."""

from collections.abc import Iterable, Iterator, Sequence

from normlab.lint.asked import Asked
from normlab.lint.finding import Finding, names
from normlab.norms import CATALOGUE
from normlab.settings import NORM_CHANNELS, Settings, small_network

__all__ = ["BY_CONSTRUCTION", "PER_SETTING", "cannot_learn", "parameters"]

GROUPS = ("num_groups", "n_groups", "groups", "channels_per_group", "group_size")  # as layers call them


def parameters(settings: Settings) -> int | None:
    """Return how many parameters the small network has; None where that is not known before it is made: with a norm or
    images of one's own, and for other networks."""
    about, net = CATALOGUE.get(settings.norm.name), settings.net
    if about is None or net.name != "small" or settings.data.name == "folder":
        return None
    stages = list(small_network(net.channels or 1, size=(net.size or 28, net.size or 28)))
    norms = sum(about.parameters(s.outputs, s.size, settings.norm.options) for s in stages if s.block)
    return sum(stage.weights for stage in stages) + norms


def _instance(settings: Settings) -> bool:
    """Return whether each channel of each image is normalized by itself."""
    about, options = CATALOGUE.get(settings.norm.name), settings.norm.options
    grouped = about is not None and about.centred and about.axes == ("GHW",)
    alone = grouped and all(about.groups(c, options) == c for c in NORM_CHANNELS)  # type: ignore[union-attr]
    return about is not None and (about.per_map or alone)


def _shares(cell: Asked) -> Iterator[int]:
    """Yield how many images share their statistics while training: of each batch, and of each ghost batch in it."""
    about = CATALOGUE.get(cell.settings.norm.name)
    if about is not None and about.of_batch:
        for batch in cell.batches:
            ghost = min(batch, int(cell.settings.norm.options.get("virtual_batch_size", batch)))
            yield from (size for size in (ghost, batch % ghost) if size)


def cannot_learn(cell: Asked) -> bool:
    """Return whether the small network's features are the same for every image, while training or always."""
    small = cell.settings.net.name == "small"
    return small and cell.settings.placement == "post" and (_instance(cell.settings) or _alone(cell))


def _alone(cell: Asked) -> bool:
    """Return whether the mean of each map of a step is fixed by statistics of its own image: one image per batch, and
    a mean per channel that is subtracted once (over NCHW there is a variance alone). Dropout hides that from the
    gradient."""
    about = CATALOGUE.get(cell.settings.norm.name)
    if about is None or not about.centred or about.chained or cell.settings.dropout:
        return False
    per_channel = all(over == "NCHW" or set(over) <= set("NVHW") for over in about.axes)
    return per_channel and max(_shares(cell), default=0) == 1


def constant(cells: Sequence[Asked]) -> Iterator[Finding]:
    """Norm after ReLU, with statistics of one image and channel: its map has mean β, and mean β only is what the global
    average pool passes on. Before ReLU (placement=pre) the mean of what is above 0 does depend on the image."""
    stuck = [cell for cell in cells if cannot_learn(cell)]
    if always := [cell for cell in stuck if _instance(cell.settings)]:
        yield Finding(
            "constant",
            f"{names(cell.label for cell in always)}: the network cannot leave chance. After the last norm every map "
            "has mean β whatever the image is, and the average pool passes on nothing else. Use placement=pre.",
        )
    if training := [cell for cell in stuck if not _instance(cell.settings)]:
        yield Finding(
            "constant",
            f"{names(cell.label for cell in training)}: the convolutions cannot learn. The average pool passes on the "
            "mean of each map only, statistics of a single image fix that mean, and no gradient goes through. Use "
            f"placement=pre, or a larger {_size_names(training)}.",
        )


def ghost(cells: Sequence[Asked]) -> Iterator[Finding]:
    """Ghost batches as large as the batch."""
    ghosts = [cell for cell in cells if cell.settings.norm.name == "gbn"]
    if whole := [cell for cell in ghosts if cell.settings.norm.options["virtual_batch_size"] >= max(cell.batches)]:
        yield Finding(
            "ghost",
            f"{names(cell.label for cell in whole)}: this is bn. A ghost batch holds all images of a step. Use a "
            "smaller norm.virtual_batch_size, or a larger batch_size.",
        )


def schedule(cells: Sequence[Asked], *, whole: bool = False) -> Iterator[Finding]:
    """Batch renormalization whose limits do not open before the run ends. whole: only where they never begin to."""
    by_steps: dict[tuple[int, int], list[Asked]] = {}
    for cell in cells:
        if cell.settings.norm.name == "brn" and cell.steps is not None:
            by_steps.setdefault((cell.steps, int(cell.settings.norm.options["begin"])), []).append(cell)
    for (steps, begin), same in by_steps.items():
        if begin >= steps - 1:  # steps count from 0, and at step `begin` the limits are still closed
            yield Finding(
                "schedule",
                f"{names(cell.label for cell in same)}: this is bn. The run has {steps:,} steps, and renormalization "
                f"begins after step {begin:,}. Lower norm.begin, norm.r_end and norm.d_end, or train longer.",
            )
        elif not whole and (
            late := [c for c in same if max(c.settings.norm.options[key] for key in ("r_end", "d_end")) > steps]
        ):
            yield Finding(
                "schedule",
                f"{names(cell.label for cell in late)}: the run ends after {steps:,} steps, before norm.r_end or "
                "norm.d_end: the limits never reach r_max and d_max. Lower them, or train longer.",
            )


FEW_IMAGES = 2


def batch(cells: Sequence[Asked]) -> Iterator[Finding]:
    """Statistics over one or two images, in every step or in the last of each epoch."""
    small: list[Asked] = []
    rest: dict[str, list[Asked]] = {}
    for cell in cells:
        if cannot_learn(cell) or not (shares := list(_shares(cell))):
            continue
        if shares[0] <= FEW_IMAGES:
            small.append(cell)
        elif min(shares) <= FEW_IMAGES:
            told = f"{_images(min(shares))} ({_origin(cell)})"
            rest.setdefault(told, []).append(cell)
    if small:
        yield Finding(
            "batch",
            f"{names(cell.label for cell in small)}: statistics of one or two images are mostly noise, and not what "
            f"eval mode's running averages hold. Use a larger {_size_names(small)}, or a norm without a batch (gn, "
            "ln).",
        )
    for told, same in rest.items():
        yield Finding(
            "batch",
            f"{names(cell.label for cell in same)}: the last statistics of a batch or epoch come from {told}, and "
            "enter the running averages with the weight of a full batch. Choose a size that leaves no small rest, or "
            "a train_size that it divides.",
        )


def _origin(cell: Asked) -> str:
    """How the smallest share comes about."""
    parts = [f"{cell.train:,} training images in batches of {cell.settings.batch_size}"] if cell.train else []
    if cell.settings.norm.name == "gbn":
        parts.append(f"ghost batches of {cell.settings.norm.options['virtual_batch_size']}")
    return ", ".join(parts)


def _images(n: int) -> str:
    return f"{n} image{'s' * (n != 1)}"


def _size_names(cells: Iterable[Asked]) -> str:
    ghosts = {cell.settings.norm.name == "gbn" for cell in cells}
    return " or ".join(["batch_size"] * (False in ghosts) + ["norm.virtual_batch_size"] * (True in ghosts))


def groups(cells: Sequence[Asked]) -> Iterator[Finding]:
    """A layer of one's own with an option that is called like a number of groups and does not divide the channels. The
    package's own norms refuse such a value."""
    for key in GROUPS:
        for cell in cells:
            given = cell.settings.norm.options.get(key)
            if cell.settings.norm.name != "custom" or cell.settings.net.name != "small":
                continue
            if isinstance(given, bool) or not isinstance(given, int):
                continue
            if uneven := sorted({c for c in NORM_CHANNELS if given < 1 or c % given}):
                yield Finding(
                    "groups",
                    f"{cell.label}: norm.options.{key}={given} does not divide {' and '.join(map(str, uneven))}, "
                    f"channels of this network. Check what {cell.settings.norm.target} does then, or take 1 or 2.",
                )


BY_CONSTRUCTION = (constant, ghost, lambda cells: schedule(cells, whole=True))
PER_SETTING = (constant, ghost, schedule, batch, groups)
