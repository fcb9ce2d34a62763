"""Rules about one setting: is it what its name says, and can it learn at all? Some are of the small network only."""

from collections.abc import Iterable, Iterator

from normlab.lint.design import Design, Setting
from normlab.lint.rules import names, rule
from normlab.norms import CATALOGUE
from normlab.output import counted
from normlab.settings import NORM_CHANNELS

GROUPS = ("num_groups", "n_groups", "groups", "channels_per_group", "group_size")  # as layers call them
FEW_IMAGES = 2


def at_chance_always(setting: Setting) -> bool:
    """Return whether the small network's features are the same for every image, always: each channel of each image is
    normalized by itself after ReLU."""
    about, options = CATALOGUE.get(setting.settings.norm.name), setting.settings.norm.options
    if about is None or setting.settings.net.name != "small" or setting.settings.placement != "post":
        return False
    grouped = about.centred and about.axes == ("GHW",)
    return about.per_map or (grouped and all(about.groups(c, options) == c for c in NORM_CHANNELS))


def cannot_learn(setting: Setting) -> bool:
    """Return whether the small network's features are the same for every image, while training or always."""
    small = setting.settings.net.name == "small"
    return at_chance_always(setting) or (small and setting.settings.placement == "post" and _alone(setting))


def _shares(setting: Setting) -> Iterator[int]:
    """Yield how many images share their statistics while training: of each batch, and of each ghost batch in it."""
    about = CATALOGUE.get(setting.settings.norm.name)
    if about is not None and about.of_batch:
        for batch in setting.batches:
            ghost = min(batch, int(setting.settings.norm.options.get("virtual_batch_size", batch)))
            yield from (size for size in (ghost, batch % ghost) if size)


def _alone(setting: Setting) -> bool:
    """Return whether the mean of each map of a step is fixed by statistics of its own image: one image per batch, and
    a mean per channel that is subtracted once (over NCHW there is a variance alone). Dropout hides that from the
    gradient."""
    about = CATALOGUE.get(setting.settings.norm.name)
    if about is None or not about.centred or about.chained or setting.settings.dropout:
        return False
    per_channel = all(over == "NCHW" or set(over) <= set("NVHW") for over in about.axes)
    return per_channel and max(_shares(setting), default=0) == 1


@rule("NL001", "network-cannot-learn", "run", "plan", "report")
def constant(design: Design) -> Iterator[str]:
    """With the small network and `placement=post`, the norm computes statistics of one channel of one image: `in`, `gn`
    with a group per channel, or a norm of the batch with one image in it.

    After the last norm every map then has mean β whatever the image is, and the global average pool passes on that mean
    only. The network stays at chance; with one image per batch no gradient reaches the convolutions.

    Use `placement=pre`, where the mean of what ReLU leaves depends on the image, or a larger batch.
    """
    stuck = [each for each in design.settings if cannot_learn(each)]
    if always := [each.label for each in stuck if at_chance_always(each)]:
        yield (
            f"{names(always)}: the network cannot leave chance. After the last norm every map has mean β whatever the "
            "image is, and the average pool passes on nothing else. Use placement=pre."
        )
    if training := [each for each in stuck if not at_chance_always(each)]:
        yield (
            f"{_labels(training)}: the convolutions cannot learn. The average pool passes on the mean of each map "
            "only, statistics of a single image fix that mean, and no gradient goes through. Use placement=pre, or a "
            f"larger {_size_names(training)}."
        )


@rule("NL002", "ghost-batch-is-the-batch", "run", "plan", "report")
def ghost(design: Design) -> Iterator[str]:
    """`norm=gbn` with `norm.virtual_batch_size` at least as large as `batch_size`.

    One ghost batch then holds all images of a step: the layer computes what `bn` computes, and a comparison of the two
    compares a layer with itself.

    Lower `norm.virtual_batch_size`, or raise `batch_size`.
    """
    ghosts = [each for each in design.settings if each.settings.norm.name == "gbn"]
    if whole := [each for each in ghosts if each.settings.norm.options["virtual_batch_size"] >= max(each.batches)]:
        yield (
            f"{_labels(whole)}: this is bn. A ghost batch holds all images of a step. Use a smaller "
            "norm.virtual_batch_size, or a larger batch_size."
        )


@rule("NL003", "renormalization-stays-closed", "run", "plan", "report")
def schedule(design: Design) -> Iterator[str]:
    """`norm=brn` in a run with no more than `norm.begin` + 1 steps or, unless it is a single run, with fewer steps than
    `norm.r_end` or `norm.d_end`.

    Batch renormalization is batch norm until step `begin`, and reaches its limits r_max and d_max at `r_end` and
    `d_end`. In a shorter run it is batch norm throughout, or most of the time.

    Lower `norm.begin`, `norm.r_end` and `norm.d_end`, or train longer.
    """
    closed, late = list[Setting](), list[Setting]()
    for each in design.settings:
        options = each.settings.norm.options
        if each.settings.norm.name != "brn" or each.steps is None:
            continue
        if options["begin"] >= each.steps - 1:  # steps count from 0, and at step `begin` the limits are still closed
            closed.append(each)
        elif design.several and max(options["r_end"], options["d_end"]) > each.steps:
            late.append(each)
    if closed:
        begin = " or ".join(sorted({str(each.settings.norm.options["begin"]) for each in closed}))
        yield (
            f"{_labels(closed)}: this is bn. The run has {_steps(closed)}, and renormalization begins after step "
            f"{begin}. Lower norm.begin, norm.r_end and norm.d_end, or train longer."
        )
    if late:
        yield (
            f"{_labels(late)}: the run ends after {_steps(late)}, before norm.r_end or norm.d_end: the limits never "
            "reach r_max and d_max. Lower them, or train longer."
        )


@rule("NL004", "statistics-of-few-images", "plan", "report")
def batch(design: Design) -> Iterator[str]:
    """A norm of the batch whose statistics come from one or two images: in every step, or in the last batch of each
    epoch, where the number of training images leaves so small a rest.

    Such statistics are mostly noise, and not what the running averages of eval mode hold. Those of a small rest enter
    the running averages with the weight of a full batch.

    Use a larger `batch_size` (or `norm.virtual_batch_size`), a norm without a batch such as `gn` or `ln`, or a
    `train_size` that the batch divides.
    """
    small: list[Setting] = []
    rest: dict[str, list[Setting]] = {}
    for each in design.settings:
        if cannot_learn(each) or not (shares := list(_shares(each))):
            continue
        if shares[0] <= FEW_IMAGES:
            small.append(each)
        elif (least := min(shares)) <= FEW_IMAGES:
            rest.setdefault(f"{counted(least, 'image')} ({_origin(each)})", []).append(each)
    if small:
        yield (
            f"{_labels(small)}: statistics of one or two images are mostly noise, and not what eval mode's running "
            f"averages hold. Use a larger {_size_names(small)}, or a norm without a batch (gn, ln)."
        )
    for images, same in rest.items():
        yield (
            f"{_labels(same)}: the last statistics of a batch or epoch come from {images}, and enter the running "
            "averages with the weight of a full batch. Choose a size that leaves no small rest, or a train_size that "
            "it divides."
        )


@rule("NL005", "groups-do-not-divide", "plan", "report")
def groups(design: Design) -> Iterator[str]:
    """`norm=custom` with an option that is called like a number or size of groups (`num_groups`, `groups`,
    `group_size`, …) and does not divide the 10, 12 or 20 channels of the small network.

    The package's own norms refuse such a value; a custom layer may round it, leave channels out or fail.

    Check what the layer does then, or take 1 or 2.
    """
    for key in GROUPS:
        for each in design.settings:
            norm, given = each.settings.norm, each.settings.norm.options.get(key)
            if norm.name != "custom" or each.settings.net.name != "small" or type(given) is not int:
                continue
            if uneven := sorted({c for c in NORM_CHANNELS if given < 1 or c % given}):
                yield (
                    f"{each.label}: norm.options.{key}={given} does not divide {' and '.join(map(str, uneven))}, "
                    f"channels of this network. Check what {norm.target} does then, or take 1 or 2."
                )


def _labels(settings: Iterable[Setting]) -> str:
    return names(each.label for each in settings)


def _steps(settings: Iterable[Setting]) -> str:
    return f"{' or '.join(f'{steps:,}' for steps in sorted({each.steps or 0 for each in settings}))} steps"


def _origin(setting: Setting) -> str:
    """How the smallest share comes about."""
    size, options = setting.settings.batch_size, setting.settings.norm.options
    parts = [f"{setting.train:,} training images in batches of {size}"] if setting.train else []
    if setting.settings.norm.name == "gbn":
        parts.append(f"ghost batches of {options['virtual_batch_size']}")
    return ", ".join(parts)


def _size_names(settings: Iterable[Setting]) -> str:
    ghosts = {each.settings.norm.name == "gbn" for each in settings}
    return " or ".join(["batch_size"] * (False in ghosts) + ["norm.virtual_batch_size"] * (True in ghosts))
