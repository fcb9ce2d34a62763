"""Rules about settings side by side: what else than the factor could make the difference?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normlab.lint.design import Design
from normlab.lint.rules import names, rule
from normlab.settings import NO_STUDY, choices, defaults
from normlab.settings.conf import spell

LARGER = 0.05  # a share more parameters: the control lacks 2 % of bn's, frn has 1 % more, ln_elem six times as many

TUNED = ("lr", "lr_per", "schedule", "batch_size", "epochs", "optimizer.momentum", "gradient_clip")
STRENGTHS = ("l1", "optimizer.weight_decay", "dropout", "augment.rotation", "augment.shift")  # 0: without

BEST = {"bn": 0.1, "ln": 0.1, "gn": 0.1, "rms": 0.1, "in": 0.3, "none": 0.03}  # lr by val_acc in study=learning_rate
FAR = 2.5  # times the best lr, or a part of it


@rule("NL006", "unequal-parameters", "plan", "report")
def unequal(design: Design) -> Iterator[str]:
    """The largest network has over 5 % more parameters than the smallest: as computed for the small network before the
    first run, as counted in a report. A control without a norm lacks 2 %, and norms with a number per channel differ by
    less than 3 %: that is part of what a norm is.

    A difference between them may be one of size.

    Switch learned numbers off (`norm.affine=false` for `ln_elem`), or say so beside the results.
    """
    by_norm: dict[str, set[int]] = {}
    for cell, count in design.counts:
        by_norm.setdefault(cell.norm, set()).add(count)
    sizes: dict[int, list[str]] = {}
    for cell, count in design.counts:  # as a rule the norm alone makes the difference
        sizes.setdefault(count, []).append(cell.norm if len(by_norm[cell.norm]) == 1 else cell.label)
    if sizes and max(sizes) > (1 + LARGER) * min(sizes):
        each = "; ".join(f"{size:,}: {names(labels)}" for size, labels in sorted(sizes.items()))
        yield f"The settings differ in the number of parameters ({each}): a difference between them may be one of size."


@rule("NL007", "confounded-factors", "plan", "report")
def confounded(design: Design) -> Iterator[str]:
    """Two factors of which one changes only together with the other. An option of a norm, network or optimizer is part
    of it and does not count, nor does the lr that an optimizer brings.

    Nothing in such a study can tell what each of the two does. The study that this package began with gave L1 to batch
    norm alone.

    Cross them: each value of the one with each of the other. An lr of each norm's own is fair if all were chosen by
    `val_acc` from the same values.
    """
    levels = [cell.levels for cell in design.grouped.cells]
    keys = [key for key in levels[0] if key != "lr" or not _brought(levels)]
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            if other.startswith(f"{one}."):  # an option is its norm's or network's: no other can be crossed with it
                continue
            pairs = {(spell(each[one]), spell(each[other])) for each in levels}
            ones, others = {a for a, _ in pairs}, {b for _, b in pairs}
            if min(len(ones), len(others)) < 2 or len(pairs) not in (len(ones), len(others)):
                continue
            follows, leads = (other, one) if len(pairs) == len(ones) else (one, other)
            fair = follows in ("lr", "lr_per") and leads == "norm"
            yield f"{follows} changes only together with {leads}: " + (
                "that is fair if each norm's was chosen by val_acc from the same values. Otherwise cross them."
                if fair
                else "their effects cannot be told apart. Cross them, each value of the one with each of the other."
            )


def _brought(levels: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each lr is the one that the optimizer brings."""
    own = {name: defaults(optimizer=name)["lr"] for name in choices("optimizer")}
    return all("optimizer" in each and each["lr"] == own.get(each["optimizer"]) for each in levels)


@rule("NL008", "chosen-by-the-test-set", "plan", "report")
def selection(design: Design) -> Iterator[str]:
    """`val_size=0` and several values of something that is tuned as a rule (lr, schedule, batch size, epochs, momentum,
    clipping) or several strengths of a penalty; with and without is a comparison, and so is what the study's claims or
    control name. Also `test_curve=true` with `val_size=0` outside a named study.

    With no images held out, only the test set can tell which value is best, and the best of several scores on the test
    set is too high.

    Choose by `val_acc` (`val_size=null` holds images out), or report every value.
    """
    study = design.study
    claims = [key for claim in (study or NO_STUDY).claims for key in (*claim.of, *claim.against)]
    compared = {*claims, *(study or NO_STUDY).control}
    without = [each.settings for each in design.settings if each.settings.val_size == 0]
    flat = [settings.flat() for settings in without]
    several = []
    for key in (*TUNED, *STRENGTHS):
        values = {spell(each[key]) for each in flat if key in each and (each[key] or key in TUNED)}
        several += [key] if len(values) > 1 and key not in compared else []
    if several:
        yield (
            f"{names(several)} {'has' if len(several) == 1 else 'have'} several values, and val_size=0 holds no images "
            "out: to choose one by these results is to choose by the test set. Choose by val_acc (val_size=null holds "
            "images out), or report every value."
        )
    if study is None and any(settings.test_curve for settings in without):
        yield (
            "test_curve=true with val_size=0: the best epoch of a test curve is chosen by the test set. Report the "
            "last epoch, as the tables here do, or hold images out and choose by val_acc."
        )


@rule("NL009", "one-learning-rate", "plan", "report")
def one_rate(design: Design) -> Iterator[str]:
    """Several norms at one `lr` with SGD that is at least 2.5 times larger or smaller than the best known rate of one
    of them. What is known comes from `study=learning_rate`: 0.1 for `bn`, `ln`, `gn` and `rms`, 0.3 for `in`, 0.03 for
    `none`. Nothing is known of other norms, and nothing is reported.

    A norm that a learning rate does not suit looks worse than it is.

    Run several values of `lr` with images held out, and compare each norm at the one that `val_acc` chooses, as
    `study=learning_rate` does.
    """
    if not (lr := _only_rate(design)) or any(each.settings.optimizer.name != "sgd" for each in design.settings):
        return
    norms = list(dict.fromkeys(each.settings.norm.name for each in design.settings))
    far = [norm for norm in norms if norm in BEST and max(lr / BEST[norm], BEST[norm] / lr) >= FAR]
    if far and len(norms) > 1:
        best = ", ".join(f"{spell(BEST[norm])} for {norm}" for norm in far)
        values = ",".join(spell(each) for each in sorted({lr, *(BEST[norm] for norm in far)}))
        held = "" if all(each.settings.val_size != 0 for each in design.settings) else " with val_size=null"
        yield (
            f"{names(norms)} are compared at one lr ({spell(lr)}); the best in study=learning_rate was {best}. Run "
            f"several, as in lr={values}{held}, and compare each norm at the one that val_acc chooses."
        )


@rule("NL010", "one-learning-rate-for-all-batches", "plan", "report")
def one_rate_of_batches(design: Design) -> Iterator[str]:
    """Several batch sizes without `lr_per`, at one `lr`.

    The best learning rate grows with the batch as a rule (linearly in Goyal et al. 2017): what looks like an effect of
    the batch is one of the learning rate.

    Set `lr_per=128`, which scales `lr` with `batch_size`, or run several values of `lr`.
    """
    sizes = {each.settings.batch_size for each in design.settings if each.settings.lr_per is None}
    if (lr := _only_rate(design)) and len(sizes) > 1:
        yield (
            f"Batches of {', '.join(map(str, sorted(sizes)))} are compared at one lr ({spell(lr)}), and the best lr "
            "grows with the batch as a rule. lr_per=128 scales it with batch_size; or run several values of lr."
        )


def _only_rate(design: Design) -> float | None:
    rates = {each.settings.lr for each in design.settings}
    return rates.pop() if len(rates) == 1 else None
