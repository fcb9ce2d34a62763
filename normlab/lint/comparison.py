"""Rules about settings side by side: what else than the factor could make the difference?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from normlab.analysis.cells import word
from normlab.lint.asked import Asked
from normlab.lint.finding import Finding, names
from normlab.settings import Settings, Study, choices, defaults

__all__ = ["confounded", "one_rate", "selection", "unequal"]

LARGER = 0.05  # a share more parameters: the control lacks 2 % of bn's, frn has 1 % more, ln_elem six times as many

TUNED = ("lr", "lr_per", "schedule", "batch_size", "epochs", "optimizer.momentum", "gradient_clip")
STRENGTHS = ("l1", "optimizer.weight_decay", "dropout", "augment.rotation", "augment.shift")  # 0: without


def unequal(counted: Sequence[tuple[str, str, int | None]]) -> Iterator[Finding]:
    """Settings of unequal size: the norm, the label and the number of parameters of each, None where it is not known.

    Told where the largest has over 5 % more than the smallest. A control without a norm lacks 2 % of the parameters,
    and none of the norms with a number a channel differs by more than 3 %: that is part of what a norm is.
    """
    by_norm: dict[str, set[int | None]] = {}
    for norm, _, count in counted:
        by_norm.setdefault(norm, set()).add(count)
    sizes: dict[int, list[str]] = {}
    unknown = []
    for norm, label, count in counted:
        name = norm if len(by_norm[norm]) == 1 else label  # as a rule the norm alone makes the difference
        if count is None:
            unknown.append(name)
        else:
            sizes.setdefault(count, []).append(name)
    if sizes and max(sizes) > (1 + LARGER) * min(sizes):
        told = "; ".join(f"{size:,}: {names(labels)}" for size, labels in sorted(sizes.items()))
        yield Finding(
            "parameters",
            f"The settings differ in the number of parameters ({told}): a difference between them may be one of size.",
        )
    if unknown and len(counted) > 1:
        others = f" The others have {' or '.join(f'{size:,}' for size in sorted(sizes))}." if sizes else ""
        yield Finding(
            "parameters",
            f"{names(unknown)}: how many parameters a layer of one's own has is not known before it is trained; the "
            f"report compares the numbers.{others}",
        )


def confounded(levels: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Two factors that change together: then nothing here tells what each of them does. levels: each setting's."""
    keys = [key for key in levels[0] if not _of_the_optimizer(key, levels)]
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            if one == "norm" and other.startswith("norm."):  # an option is its norm's: no other can be crossed with it
                continue
            pairs = {(word(each[one]), word(each[other])) for each in levels}
            ones, others = {a for a, _ in pairs}, {b for _, b in pairs}
            if min(len(ones), len(others)) < 2 or len(pairs) not in (len(ones), len(others)):
                continue
            follows, leads = (other, one) if len(pairs) == len(ones) else (one, other)
            message = (
                f"{follows} changes only together with {leads}: their effects cannot be told apart. Cross them, each "
                "value of the one with each of the other."
            )
            if follows in ("lr", "lr_per") and leads == "norm":
                message = (
                    f"{follows} changes only together with norm: that is fair if each norm's was chosen by val_acc "
                    "from the same values. Otherwise cross them."
                )
            yield Finding("confounded", message)


def _of_the_optimizer(key: str, levels: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a factor comes with the factor optimizer: a setting of one optimizer's, or the lr that each brings."""
    if "optimizer" not in levels[0]:
        return False
    if key == "lr":
        own = {name: defaults(optimizer=name)["lr"] for name in choices("optimizer")}
        return all(each["lr"] == own.get(each["optimizer"]) for each in levels)
    pairs = {(each["optimizer"], word(each[key])) for each in levels}
    return key.startswith("optimizer.") and len(pairs) == len({name for name, _ in pairs})


def selection(cells: Sequence[Asked], study: Study | None) -> Iterator[Finding]:
    """Nothing held out, and something to choose: several values of a nuisance factor, or several strengths of a penalty
    (with and without is a comparison). What a study's claims name is compared, not chosen."""
    without = [cell.settings for cell in cells if cell.settings.val_size == 0]
    claimed = {key for claim in (study.claims if study else []) for key in (*claim.of, *claim.against)}
    flat = [settings.flat() for settings in without]
    several = []
    for key in (*TUNED, *STRENGTHS):
        values = {word(each[key]) for each in flat if key in each and (each[key] or key in TUNED)}
        several += [key] if len(values) > 1 and key not in claimed else []
    if several:
        yield Finding(
            "selection",
            f"{names(several)} {'has' if len(several) == 1 else 'have'} several values, and val_size=0 holds no images "
            "out: to choose one by these results is to choose by the test set. Choose by val_acc (val_size=null holds "
            "images out), or report every value.",
        )
    if study is None and any(settings.test_curve for settings in without):
        yield Finding(
            "selection",
            "test_curve=true with val_size=0: the best epoch of a test curve is chosen by the test set. Report the "
            "last epoch, as the tables here do, or hold images out and choose by val_acc.",
        )


def one_rate(cells: Sequence[Asked]) -> Iterator[Finding]:
    """Norms, or batch sizes without lr_per, that are compared at one learning rate."""
    rates = {cell.settings.lr for cell in cells}
    if len(rates) > 1 or not cells:
        return
    (lr,) = rates
    norms = list(dict.fromkeys(_norm(cell.settings) for cell in cells))
    if len(norms) > 1:
        study = ", or with study=learning_rate" if "learning_rate" in choices("study") else ""
        yield Finding(
            "learning-rate",
            f"{names(norms)} are compared at one lr ({word(lr)}), and the best lr may differ between them. Run several "
            f"values, as in lr={word(lr / 2)},{word(lr)},{word(lr * 2)}{study}, and compare each norm at the one that "
            "val_acc chooses.",
        )
    sizes = {cell.settings.batch_size for cell in cells if cell.settings.lr_per is None}
    if len(sizes) > 1:
        yield Finding(
            "learning-rate",
            f"Batches of {', '.join(map(str, sorted(sizes)))} are compared at one lr ({word(lr)}), and the best lr "
            "grows with the batch as a rule. lr_per=128 scales it with batch_size; or run several values of lr.",
        )


def _norm(settings: Settings) -> str:
    return settings.norm.target or settings.norm.name
