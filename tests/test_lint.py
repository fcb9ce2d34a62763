"""The linter before a study starts: every rule where it speaks, and beside that where it is silent."""

import itertools
import json
import math
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import REPOSITORY
from made_up_runs import made_up

from normlab import train
from normlab.analysis.cells import group_runs
from normlab.analysis.questions import Answers
from normlab.analysis.table import runs
from normlab.data.datamodule import ImageData
from normlab.data.sources import load as images
from normlab.errors import ConfigError
from normlab.lint import RULES, Finding, Spread, check_codes, lint, spread_of
from normlab.lint.comparison import BEST
from normlab.lint.design import IMAGES, SEEN, Setting, assumed, parameters, planned
from normlab.lint.network import cannot_learn
from normlab.lint.rules import names, page
from normlab.lint.seeds import family
from normlab.nets import Net, norm_layers
from normlab.norms import CATALOGUE, make_norm
from normlab.record import Record
from normlab.settings import Claim, Settings, Study
from normlab.settings.plan import plan

PACKAGED = list(CATALOGUE)
STUDY = Study(question="?", margin=0.5)


def asked_for(*words: str) -> Settings:
    """As `load` gives it, without Hydra, whose tenth of a second a run would be most of these tests."""
    values: dict[str, object] = {}
    for word in words:
        key, _, text = word.partition("=")
        try:
            value: object = float(text) if "." in text or "e-" in text else int(text)
        except ValueError:
            value = yaml.safe_load(text)
        group, _, leaf = key.partition(".")
        if leaf or key in ("norm", "data"):
            inner = values.setdefault(group, {})
            assert isinstance(inner, dict)
            inner[leaf or "name"] = value
        else:
            values[key] = value
    return Settings.model_validate(values)


def crossed(words: str) -> list[Settings]:
    """A sweep, as it stands on a command line."""
    axes = []
    for word in ("data=mnist", *shlex.split(words)):
        key, _, text = word.partition("=")
        if text.startswith("range("):
            text = ",".join(map(str, range(int(text[6:-1]))))
        axes.append([f"{key}={value}" for value in ([text] if text.startswith("{") else text.split(","))])
    axes = list({axis[0].partition("=")[0]: axis for axis in axes}.values())
    return [asked_for(*each) for each in itertools.product(*axes)]


def found(words: str, study: Study | None = None, spread: Spread | None = None) -> list[Finding]:
    """What is reported of a sweep."""
    return lint(crossed(words), study, spread)


def messages(words: str, code: str, study: Study | None = None, spread: Spread | None = None) -> str:
    """What one rule reports of it; "" where it is silent."""
    return " ".join(finding.message for finding in found(words, study, spread) if finding.code == code)


def one(*words: str) -> Setting:
    return planned([asked_for("data=digits", *words)], None).settings[0]


def network(settings: Settings) -> Net:
    own = {"norm_options": settings.norm.options, "weight_standardization": settings.weight_standardization}
    return Net(settings.norm.name, placement=settings.placement, **own)


# What is known without torch is what torch says


@pytest.mark.parametrize("norm", PACKAGED)
def test_the_number_of_parameters_is_the_networks(norm: str) -> None:
    for words in ([], ["norm.affine=false"], ["norm.threshold=false"], ["norm.channels_per_group=1"]):
        try:
            settings = asked_for(f"norm={norm}", *words)
        except ValueError:  # no option of this norm
            continue
        assert parameters(settings) == sum(p.numel() for p in network(settings).parameters()), (norm, words)
    assert parameters(asked_for(f"norm={norm}", "weight_standardization=true")) == parameters(asked_for(f"norm={norm}"))


def test_the_number_of_images_is_the_data_sets() -> None:
    digits = images("digits")
    assert IMAGES["digits"] == (len(digits.train_images), len(digits.test_images))
    assert IMAGES["mnist"] == (60_000, 10_000)


@pytest.mark.parametrize(
    "words", [[], ["val_size=0"], ["batch_size=16", "val_size=0"], ["train_size=40"], ["train_size=128"]]
)
def test_batches_and_steps_are_the_loaders(words: list[str]) -> None:
    cell = one(*words, "epochs=3")
    given = {name: getattr(cell.settings, name) for name in ("batch_size", "train_size", "val_size")}
    data = ImageData("digits", **given)
    data.setup()
    sizes = [len(labels) for _, labels in data.train_dataloader()]
    assert cell.train == len(data.train)
    assert cell.steps == 3 * len(sizes)
    assert list(cell.batches) == list(dict.fromkeys(sizes))


def test_what_is_not_known_is_not_guessed() -> None:
    for words in (["data=auto"], ["data=digits", "train_size=1297"], ["data=digits", "val_size=1297"]):
        (cell,) = planned([asked_for(*words)], None).settings
        assert cell.train is None
        assert cell.steps is None
        assert cell.batches == (128,)


def gradient(settings: Settings, batch_size: int) -> float:
    """The largest gradient of a 3x3 convolution's weight in a training step, with norms that are not at their start."""
    torch.manual_seed(0)
    net = network(settings).double()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):  # small: a ReLU behind a large one, as with center, is open for every pixel
            torch.nn.init.uniform_(parameter, -1e-3, 1e-3)
        elif parameter.dim() < 4 and parameter.numel() > 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    x, y = torch.randn(batch_size, 1, 28, 28, dtype=torch.float64), torch.arange(batch_size) % 10
    torch.nn.functional.nll_loss(net(x), y).backward()
    return max(float(p.grad.abs().max()) for p in net.parameters() if p.grad is not None and p.shape[-1] == 3)


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("norm", [*PACKAGED, "gn norm.channels_per_group=1", "gbn norm.virtual_batch_size=1"])
def test_cannot_learn_is_where_no_gradient_comes_through(norm: str, placement: str, batch_size: int) -> None:
    cell = one(*f"norm={norm}".split(), f"placement={placement}", f"batch_size={batch_size}")
    assert cannot_learn(cell) == (gradient(cell.settings, batch_size) < 1e-12)


def test_an_instance_norm_after_relu_says_the_same_of_every_image() -> None:
    """In eval mode, which dropout leaves alone."""
    x = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for placement, same in (("post", True), ("pre", False)):
        net = Net("in", dropout=0.5, placement=placement).eval()
        for layer in norm_layers(net).values():
            torch.nn.init.uniform_(layer.bias, 0.5, 1.5)
        out = net(x)
        assert torch.allclose(out, out[:1].expand_as(out), atol=1e-5) == same
        assert cannot_learn(one("norm=in", "dropout=0.5", f"placement={placement}")) == same


def test_a_ghost_batch_as_large_as_the_batch_is_batch_norm() -> None:
    x = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for size, same in ((6, True), (5, False)):
        outs = []
        for norm, options in (("bn", {}), ("gbn", {"virtual_batch_size": size})):
            torch.manual_seed(0)
            outs.append(Net(norm, norm_options=options)(x))
        assert torch.equal(*outs) == same
        assert bool(messages(f"norm=gbn batch_size=6 norm.virtual_batch_size={size} seed=0,1", "NL002")) == same


@pytest.mark.parametrize(("begin", "closed"), [(29, True), (28, False)])
def test_renormalization_that_begins_too_late_is_batch_norm(begin: int, closed: bool) -> None:
    words = ["norm=brn", f"norm.begin={begin}", "norm.r_end=30", "norm.d_end=30", "epochs=3"]
    cell = one(*words)
    assert cell.steps == 30
    norms = make_norm("brn", 10, cell.settings.norm.options), make_norm("bn", 10)
    norms[0].running.num_batches_tracked.fill_(29)
    maps = 3 * torch.randn(4, 10, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.allclose(*(norm(maps) for norm in norms), atol=1e-5) == closed
    warned = [finding.message for finding in lint([cell.settings])]
    assert bool(warned) == closed
    if closed:
        assert "this is bn" in warned[0]
        assert "30 steps" in warned[0]


# The rules: what each one reports of a sweep, and a neighbour of which it reports nothing

GHOSTS = "norm=gbn batch_size=100 seed=0,1 norm.virtual_batch_size="
REST = "norm=bn data=digits val_size=0 seed=0,1 batch_size="
GHOST_REST = "norm=gbn data=digits batch_size=64 seed=0,1 norm.virtual_batch_size="
BRN = "norm=brn data=digits batch_size=64 seed=0,1 epochs="
CUSTOM = "norm=custom norm.target=mine:Layer seed=0,1 'norm.options={{{}}}'"
COMPARED = Study(question="?", control={"l1": 0.0})
SIZES = Claim(claim="c", source="s", of={"batch_size": 8}, against={"batch_size": 128}, expect="lower")
CLAIMED = Study(question="?", claims=[SIZES])


@pytest.mark.parametrize(
    ("code", "words", "text", "silent", "study"),
    [
        ("NL001", "norm=bn batch_size=1 seed=0,1", "the convolutions cannot learn", "norm=bn batch_size=2", None),
        ("NL001", "norm=gbn norm.virtual_batch_size=1", "larger norm.virtual_batch_size", "norm=gbn", None),
        ("NL001", "norm=in,bn", "in: the network cannot leave chance", "norm=in,bn placement=pre", None),
        ("NL002", "norm=gbn batch_size=16", "gbn: this is bn", "norm=gbn batch_size=17", None),
        ("NL003", f"{BRN}12", "ends after 228 steps", f"{BRN}50", None),
        ("NL003", f"{BRN}3", "57 steps, and renormalization begins after step 100", f"{BRN}50", None),
        ("NL004", "norm=bn batch_size=2", "bn: statistics of one or two images", "norm=bn batch_size=4", None),
        ("NL004", "norm=bn batch_size=1 dropout=0.1", "of one", "norm=gn batch_size=2", None),
        ("NL004", f"{GHOSTS}2", "larger norm.virtual_batch_size, or", f"{GHOSTS}20", None),
        ("NL004", f"{REST}16", "1 image (1,297 training images in batches of 16),", f"{REST}16 train_size=1296", None),
        ("NL004", f"{GHOST_REST}31",
         "2 images (1,168 training images in batches of 64, ghost batches of 31), and", f"{GHOST_REST}32", None),
        ("NL005", CUSTOM.format("num_groups: 4"), "4 does not divide 10", CUSTOM.format("num_groups: 2"), None),
        ("NL005", CUSTOM.format("groups: 0"), "groups=0 does not", CUSTOM.format("num_groups: true, eps: 4"), None),
        ("NL006", "norm=bn,ln_elem", "7,614: bn; 50,426: ln_elem", "norm=none,bn,frn,dyt,rms,gn", None),
        ("NL008", "lr=0.1,0.2 val_size=0", "lr has several values", "lr=0.1,0.2", None),
        ("NL008", "batch_size=64,128 val_size=0", "val_size=null", "norm=bn,ln val_size=0", None),
        ("NL008", "epochs=5,10 val_size=0", "epochs has", "placement=pre,post val_size=0", None),
        ("NL008", "l1=1e-4,1e-3 val_size=0", "l1 has", "l1=0,1e-3 val_size=0", None),
        ("NL008", "dropout=0.1,0.2 l1=1e-4,1e-3 val_size=0", "dropout has", "l1=1e-4,1e-3 val_size=0", COMPARED),
        ("NL008", "batch_size=8,128 lr=0.1,0.2 val_size=0", "lr has several", "batch_size=8,128 val_size=0", CLAIMED),
        ("NL008", "optimizer.weight_decay=1e-4,1e-3 val_size=0", "weight_decay has", "dropout=0,0.1 val_size=0", None),
        ("NL008", "schedule=onecycle,constant val_size=0", "schedule has", "schedule=onecycle,constant", None),
        ("NL008", "norm=bn,ln test_curve=true val_size=0", "best epoch of a test curve", "test_curve=true", None),
        ("NL009", "norm=bn,none", "was 0.03 for none. Run several, as in lr=0.03,0.1, and", "norm=bn,ln,gn,rms", None),
        ("NL009", "norm=bn,in val_size=0", "lr=0.1,0.3 with val_size=null", "norm=bn,in lr=0.1,0.3", None),
        ("NL009", "norm=bn,ln lr=1", "0.1 for bn, 0.1 for ln", "norm=bn lr=1 l1=0,1e-3", None),
        ("NL009", "norm=bn,ln lr=1", "0.1 for bn, 0.1 for ln", "norm=bn,ln lr=1 optimizer=adamw", None),
        ("NL010", "batch_size=8,128", "Batches of 8, 128 are compared at one lr", "batch_size=8,128 lr_per=128", None),
        ("NL010", "batch_size=8,128", "Batches of 8, 128", "batch_size=8,128 lr=0.01,0.1", None),
        ("NL011", "norm=bn,ln seed=0", "One seed per setting", "norm=bn,ln seed=0 until=decided", None),
        ("NL011", "norm=bn,ln seed=0", "One seed per setting", "norm=bn seed=0", STUDY),
        ("NL012", "norm=bn,ln", "2 degrees of freedom, and |t| has to exceed 4.3", "norm=bn,ln seed=0,1,2", None),
        ("NL012", "norm=bn,ln data=digits", "of 0.5 pp, the", "norm=bn,ln data=digits seed='range(6)'", STUDY),
        ("NL013", "norm=bn,ln data=digits seed='range(6)'", "6 seeds per", "norm=bn,ln seed='range(6)'", STUDY),
    ],
)  # fmt: skip
def test_each_rule_where_it_speaks_and_where_not(code: str, words: str, text: str, silent: str, study) -> None:
    assert text in messages(f"seed=0,1 {words}", code, study)
    assert messages(f"seed=0,1 {silent}", code, study) == ""


def test_a_network_without_a_gradient_is_reported_once() -> None:
    assert [finding.code for finding in found("norm=bn batch_size=1 seed=range(5)")] == ["NL001"]


def test_one_run_is_warned_of_by_construction_only() -> None:
    assert lint([asked_for("norm=bn", "batch_size=2", "val_size=0", "test_curve=true", "data=digits")]) == []
    assert [finding.code for finding in lint([asked_for("norm=in")])] == ["NL001"]
    assert [finding.code for finding in lint([asked_for("norm=gbn", "batch_size=16")])] == ["NL002"]
    assert lint([asked_for("norm=brn", "data=digits")]) == [], "it opens, if not in full"


def of(*runs: str) -> list[str]:
    """What NL007 reports of runs that no sweep crosses."""
    every = [asked_for("data=mnist", f"seed={seed}", *run.split()) for run in runs for seed in range(5)]
    return [finding.message for finding in lint(every) if finding.code == "NL007"]


@pytest.mark.parametrize(
    ("crossed_not", "text"),
    [
        (("norm=bn l1=1e-3", "norm=ln", "norm=gn"), "l1 changes only together with norm: their effects cannot"),
        (("norm=bn dropout=0.2", "norm=ln"), "dropout changes only together with norm"),
        (("optimizer=sgd lr=0.2", "optimizer=adamw"), "lr changes only together with optimizer"),
        (("norm=bn lr=0.2", "norm=ln lr=0.05"), "fair if each norm's was chosen by val_acc"),
        (("norm=bn l1=1e-3", "norm=bn", "norm=ln", "norm=gn"), ""),
        (("norm=bn", "norm=gn norm.num_groups=1", "norm=gn norm.num_groups=2"), ""),
        (("augment.rotation=5 augment.shift=1", "augment.rotation=9 augment.shift=3"), "augment.shift changes only"),
        (("optimizer=sgd", "optimizer=adamw"), ""),
        (("net=small data=digits", "net=resnet10 data=digits"), ""),
        (("augment=true", "augment=false"), ""),
    ],
)
def test_confounded_factors(crossed_not: tuple[str, ...], text: str) -> None:
    """The first is the first study's own design. An option is its norm's, and an optimizer brings its lr."""
    assert not text or any(text in message for message in of(*crossed_not))
    assert bool(of(*crossed_not)) == bool(text)


def test_the_best_learning_rates_are_those_of_the_study() -> None:
    """Of the committed table: the rate with the best mean validation accuracy of those at which every run trained."""
    table = pd.read_csv(REPOSITORY / "docs/studies/learning_rate/rates.csv")
    best = table[table["best"]].set_index("setting")["lr"]
    assert best.to_dict() == BEST
    assert f"{BEST['in']:g} for `in`, {BEST['none']:g} for `none`" in RULES["NL009"].detected


# Seeds


def test_too_few_seeds_for_the_margin() -> None:
    """As many as are named are enough, and one fewer is not."""
    ask = "norm=bn,ln lr=0.05,0.1 seed='range({})'"
    spread = Spread(0.4, "as seen")
    message = messages(ask.format(5), "NL013", STUDY, spread)
    needed = int(message.partition("range(")[2].partition(")")[0])
    told = f"About {needed} would find it with 80 % power in each. Give more, as in 'seed=range({needed})', or"
    assert told in message
    seven = "two effects, whether they depend on each other, and each setting against two controls"
    assert "0.5 pp, the study's margin, at an sd of 0.4 pp per run (as seen) and 7 questions" in message, seven
    assert messages(ask.format(needed), "NL013", STUDY, spread) == ""
    assert messages(ask.format(needed - 1), "NL013", STUDY, spread) != ""
    z, power = 2.69, 0.84  # normal quantiles of 1 - 0.05/7/2 and of 0.8; z²/2 more runs for t (Guenther 1981)
    assert needed == pytest.approx(2 * ((z + power) * 0.4 / 0.5) ** 2 + z**2 / 2 / 4, abs=1.5)


def test_seeds_that_decide_nothing() -> None:
    """Where the t of so many degrees of freedom (from a table), at half the sd, reaches the margin, and no sooner."""
    words, margin = "norm=bn,ln,gn seed=0,1", SEEN * 4.177 / 2  # 3 degrees of freedom, 1 - 0.05/2/2: two questions
    for at, reported in ((0.99 * margin, True), (1.01 * margin, False)):
        assert bool(messages(words, "NL012", Study(question="?", margin=at))) == reported
        assert bool(messages(words, "NL013", Study(question="?", margin=at))) != reported, "one of the two"


def test_as_many_questions_are_counted_as_the_report_has(tmp_path: Path) -> None:
    """Of the replication with its claims, and of a custom layer, with three factors."""
    for norm, target in (("bn", None), ("ln", None), ("custom", "mine:Layer")):
        for l1, dropout, seed in itertools.product((0.0, 1e-3), (0.0, 0.1), (0, 1)):
            made_up(tmp_path, norm, seed, target=target, l1=l1, dropout=dropout, test_acc=0.9, files=False)
    for folder in (REPOSITORY / "lightning_logs/replication", tmp_path):
        study, every = Study.find(folder), runs(folder)
        known = [{key: each.record.config.get(key) for key in Settings.model_fields} for each in every]
        settings = [Settings.model_validate({k: v for k, v in each.items() if v is not None}) for each in known]
        answers = Answers(group_runs(every, study.factors if study else ()), study, 0.1)
        assert len(family(planned(settings, study)).declared) == len(answers.answers)


def record(seed: int, acc: float, *words: str, data: str = "mnist") -> Record:
    return Record.of(asked_for(f"data={data}", f"seed={seed}", *words), "completed", metrics={"test_acc": acc})


def test_the_spread_of_finished_runs_is_pooled_over_settings() -> None:
    accs = {"bn": [0.990, 0.992, 0.991], "ln": [0.995, 0.991, 0.990]}
    records = [record(i, acc, f"norm={norm}") for norm, values in accs.items() for i, acc in enumerate(values)]
    spread = spread_of(records)
    assert spread is not None
    variances = [np.var(np.multiply(values, 100), ddof=1) for values in accs.values()]
    assert spread.sd == pytest.approx(math.sqrt(np.mean(variances)))
    assert "6 finished runs" in spread.source
    assert spread_of(records[:-1]) is None, "3 degrees of freedom"
    assert spread_of([record(i, 0.99) for i in range(9)]) is None, "no spread"
    assert spread_of([*records, record(0, 0.9, data="digits")]) is None, "two data sets"


def test_the_assumed_spread_is_what_the_replication_has() -> None:
    records = [Record.load(file.parent) for file in (REPOSITORY / "lightning_logs/replication").rglob("result.json")]
    seen, believed = spread_of(records), assumed(one("data=mnist"))
    assert seen is not None
    assert believed is not None
    assert round(seen.sd, 2) == believed.sd
    digits = assumed(one())
    assert digits is not None
    assert digits.sd == pytest.approx(100 * math.sqrt(0.993 * 0.007 / 500))
    for words in (["data=auto"], ["data=mnist", "train_size=6000"]):
        assert assumed(one(*words)) is None


# Whole studies, codes, the page


def test_a_fair_sweep_has_no_finding() -> None:
    assert found("norm=none,bn,ln,gn lr=0.05,0.1 seed='range(5)'") == []
    assert found("norm=bn,ln,gn l1=0,1e-3 seed=0,1,2") == []


def test_two_data_sets_are_two_studies() -> None:
    alone = found("data=mnist norm=bn,ln_elem seed=0,1")
    assert found("data=mnist,kmnist norm=bn,ln_elem seed=0,1") == alone


def test_every_finding_is_a_line() -> None:
    every = found("norm=in,bn,gbn,brn,ln_elem batch_size=1,2,64 l1=1e-4,1e-3 val_size=0 test_curve=true data=digits")
    assert len({finding.code for finding in every}) >= 8
    for finding in every:
        assert "\n" not in finding.message
        assert finding.message.endswith(".")
        assert len(finding.message) < 400


def test_codes_are_stable_and_the_page_is_made_of_the_rules() -> None:
    assert sorted(RULES) == [f"NL{number:03}" for number in range(1, len(RULES) + 1)]
    committed = (REPOSITORY / "docs" / "lint.md").read_text(encoding="utf-8")
    assert committed == page(), "python -m normlab.lint > docs/lint.md"
    for rule in RULES.values():
        assert rule.when
        assert all(part.endswith(".") for part in (rule.detected, rule.why, rule.fix))


def test_ignored_codes() -> None:
    runs_ = crossed("norm=in,bn seed=0")
    assert [each.code for each in lint(runs_)] == ["NL001", "NL009", "NL011"]
    assert [each.code for each in lint(runs_, ignore=["NL009", "NL001"])] == ["NL011"]
    told = {"NL0009": "did you mean NL009", "nl010": "did you mean NL010", "x": "choose one of NL001"}
    for code, nearest in told.items():
        with pytest.raises(ConfigError, match=f"ignore {code}: no such rule; {nearest}"):
            check_codes(["NL001", code])
    assert asked_for("ignore=[NL001]").config_hash() == asked_for().config_hash()


def test_a_long_list_is_cut() -> None:
    assert names(["bn", "ln", "bn"]) == "bn, ln"
    assert names("abcdef") == "a, b, c, d, e, f"
    assert names("abcdefg") == "a, b, c, d, e and 2 more"


# The command line


def launched(monkeypatch, tmp_path: Path, capsys, words: str) -> list[str]:
    """The lines on stderr, "launch" where the runs would start."""
    multirun, *overrides = words.split()

    def launch(*_: object) -> None:
        print("launch", file=sys.stderr)

    monkeypatch.setattr(train, "Sweep", lambda *_, **__: SimpleNamespace(run=launch))
    monkeypatch.setattr(train, "run_single", launch)
    overrides += ["data=digits", f"log_dir={tmp_path}"]
    train.do_runs(overrides, multirun == "-m")
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        ("-m norm=bn,in", ["NL001", "NL009", "NL011"]),
        ("-m norm=bn,in ignore=[NL009,NL001]", ["NL011"]),
        ("-m norm=bn lr=0.1,0.2 seed=0,1,2,3,4", []),
        ("one norm=bn", []),
        ("one norm=in", ["NL001"]),
        ("one study=replication_quick norm=bn,in l1=0", ["NL001", "NL009"]),
    ],
)
def test_it_is_told_before_the_first_run(monkeypatch, tmp_path: Path, capsys, words: str, warnings: list[str]) -> None:
    *lines, last = launched(monkeypatch, tmp_path, capsys, words)
    assert last == "launch"
    assert [line[: len("normlab: warning NL001:")] for line in lines] == [f"normlab: warning {w}:" for w in warnings]


def test_nothing_is_told_where_nothing_is_left_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    for job in plan(["norm=bn,ln", "data=digits", f"log_dir={tmp_path}"], multirun=True):
        job.folder.mkdir(parents=True)
        Record.of(job.settings, "completed").save(job.folder)
    assert launched(monkeypatch, tmp_path, capsys, "-m norm=bn,ln") == []


def test_finished_runs_say_what_to_expect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    words = "study=replication norm=bn,ln l1=0 seed=0,1,2,3"
    assert [line for line in launched(monkeypatch, tmp_path, capsys, f"one {words}") if "4 seeds" in line]
    jobs = plan([*words.split(), "data=digits", f"log_dir={tmp_path}"], multirun=False)
    for job in jobs[:-1]:
        done = record(job.settings.seed, 0.99 + job.settings.seed / 1e5, data="digits")
        values = {"config_hash": job.settings.config_hash(), "setting": job.settings.setting()}
        Record(**{**json.loads(json.dumps(done.__dict__)), **values}).save(job.folder)
    lines = launched(monkeypatch, tmp_path, capsys, f"one {words}")
    assert not [line for line in lines if "seeds" in line], "an sd of 0.001 pp is as good as none"


def test_it_is_told_without_torch() -> None:
    code = (
        "import sys; from normlab.train import _warn; from normlab.settings.plan import plan; "
        "from normlab.settings import Study; "
        "_warn(plan(['study=replication', 'seed=0,1', 'l1=0'], multirun=False), Study.named('replication')); "
        "print(sorted({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("normlab: warning NL") == 1
