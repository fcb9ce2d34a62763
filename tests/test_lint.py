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
import pytest
import torch
import yaml
from conftest import REPOSITORY

from normlab import train
from normlab.data.datamodule import ImageData
from normlab.data.sources import load as images
from normlab.errors import ConfigError
from normlab.lint import Finding, lint
from normlab.lint.asked import IMAGES, Asked, asked
from normlab.lint.finding import names
from normlab.lint.network import cannot_learn, parameters
from normlab.lint.seeds import Spread, assumed, spread_of
from normlab.nets import Net, norm_layers
from normlab.norms import CATALOGUE, make_norm
from normlab.record import Record
from normlab.settings import Claim, Settings, Study, protocol, sweep_of
from normlab.settings.plan import load, plan

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
    """What is said of a sweep."""
    return lint(crossed(words), study, spread)


def said(words: str, code: str, study: Study | None = None, spread: Spread | None = None) -> str:
    """What one rule says of it; "" where it is silent."""
    return " ".join(finding.message for finding in found(words, study, spread) if finding.code == code)


def one(*words: str) -> Asked:
    return asked([asked_for("data=digits", *words)])[0]


def network(settings: Settings) -> Net:
    return Net(
        settings.norm.name,
        placement=settings.placement,
        norm_options=settings.norm.options,
        weight_standardization=settings.weight_standardization,
    )


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
    asked_for = cell.settings
    data = ImageData(
        "digits", batch_size=asked_for.batch_size, train_size=asked_for.train_size, val_size=asked_for.val_size
    )
    data.setup()
    sizes = [len(labels) for _, labels in data.train_dataloader()]
    assert cell.train == len(data.train)
    assert cell.steps == 3 * len(sizes)
    assert list(cell.batches) == list(dict.fromkeys(sizes))


def test_what_is_not_known_is_not_guessed() -> None:
    for words in (["data=auto"], ["data=digits", "train_size=1297"], ["data=digits", "val_size=1297"]):
        (cell,) = asked([asked_for(*words)])
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
        assert bool(said(f"norm=gbn batch_size=6 norm.virtual_batch_size={size} seed=0,1", "ghost")) == same


@pytest.mark.parametrize(("begin", "closed"), [(29, True), (28, False)])
def test_renormalization_that_begins_too_late_is_batch_norm(begin: int, closed: bool) -> None:
    words = ["norm=brn", f"norm.begin={begin}", "norm.r_end=30", "norm.d_end=30", "epochs=3"]
    cell = one(*words)
    assert cell.steps == 30
    norms = make_norm("brn", 10, cell.settings.norm.options), make_norm("bn", 10)
    norms[0].running.num_batches_tracked.fill_(29)
    maps = 3 * torch.randn(4, 10, 6, 6, generator=torch.Generator().manual_seed(0)) + 1
    assert torch.allclose(*(norm(maps) for norm in norms), atol=1e-5) == closed
    told = [finding.message for finding in lint([cell.settings])]
    assert bool(told) == closed
    if closed:
        assert "this is bn" in told[0]
        assert "30 steps" in told[0]


# One setting


def test_statistics_of_a_few_images() -> None:
    assert "bn: statistics of one or two images" in said("norm=bn batch_size=2 seed=0,1", "batch")
    assert said("norm=bn batch_size=4 seed=0,1", "batch") == ""
    assert said("norm=gn batch_size=2 seed=0,1", "batch") == ""
    ghosts = "norm=gbn batch_size=100 seed=0,1 norm.virtual_batch_size="
    assert "larger norm.virtual_batch_size, or" in said(f"{ghosts}2", "batch")
    assert said(f"{ghosts}20", "batch") == ""


def test_a_small_rest_of_a_batch() -> None:
    digits = "norm=bn data=digits val_size=0 seed=0,1 batch_size="
    assert "1 image (1,297 training images in batches of 16)" in said(f"{digits}16", "batch")
    assert said(f"{digits}16 train_size=1296", "batch") == ""
    assert said(f"{digits}20", "batch") == "", "17 images"
    ghosts = "norm=gbn data=digits batch_size=64 seed=0,1 norm.virtual_batch_size="
    assert "2 images (1,168 training images in batches of 64, ghost batches of 31)" in said(f"{ghosts}31", "batch")
    assert said(f"{ghosts}32", "batch") == ""


def test_a_network_without_a_gradient_is_told_once() -> None:
    codes = [finding.code for finding in found("norm=bn batch_size=1 seed=range(5)")]
    assert codes == ["constant"]
    assert "the convolutions cannot learn" in said("norm=bn batch_size=1 seed=0,1", "constant")
    assert "larger norm.virtual_batch_size" in said("norm=gbn norm.virtual_batch_size=1 seed=0,1", "constant")
    assert "statistics of one" in said("norm=bn batch_size=1 dropout=0.1 seed=0,1", "batch"), (
        "dropout lets some through"
    )


def test_renormalization_that_does_not_open_in_full() -> None:
    words = "norm=brn data=digits batch_size=64 seed=0,1 epochs="
    assert "ends after 228 steps" in said(f"{words}12", "schedule")
    assert said(f"{words}50", "schedule") == ""


def test_groups_of_a_layer_of_ones_own() -> None:
    ask = "norm=custom norm.target=mine:Layer seed=0,1 'norm.options={{{}}}'"
    assert "num_groups=4 does not divide 10" in said(ask.format("num_groups: 4"), "groups")
    for silent in ("num_groups: 2", "num_groups: true", "eps: 4"):
        assert said(ask.format(silent), "groups") == ""
    with pytest.raises(ConfigError, match=r"norm\.num_groups=4 does not divide the channels"):
        load("norm=gn", "norm.num_groups=4")


def test_one_run_is_warned_of_by_construction_only() -> None:
    assert lint([asked_for("norm=bn", "batch_size=2", "val_size=0", "test_curve=true", "data=digits")]) == []
    assert [finding.code for finding in lint([asked_for("norm=in")])] == ["constant"]
    assert [finding.code for finding in lint([asked_for("norm=gbn", "batch_size=16")])] == ["ghost"]
    assert lint([asked_for("norm=gbn", "batch_size=17")]) == []
    assert lint([asked_for("norm=brn", "data=digits")]) == [], "it opens, if not in full"


# Settings side by side


def test_unequal_parameters() -> None:
    assert "7,614: bn; 50,426: ln_elem" in said("norm=bn,ln_elem seed=0,1", "parameters")
    for silent in ("none,bn,frn,dyt,rms,gn", "bn,ln"):
        assert said(f"norm={silent} seed=0,1", "parameters") == ""
    without = [asked_for("norm=ln_elem", "norm.affine=false", "data=mnist"), asked_for("norm=bn", "data=mnist")]
    assert not [finding for finding in lint(without) if finding.code == "parameters"]


def test_the_parameters_of_a_layer_of_ones_own_are_not_known() -> None:
    mine = asked_for("norm=custom", "norm.target=mine:Layer", "data=mnist")
    told = [
        finding.message for finding in lint([asked_for("norm=bn", "data=mnist"), mine]) if finding.code == "parameters"
    ]
    assert len(told) == 1
    assert "custom" in told[0]
    assert "7,614" in told[0]
    assert said("norm=custom norm.target=mine:Layer seed=0,1", "parameters") == "", "nothing to compare it with"


def of(*runs: str) -> list[Finding]:
    """Of runs that no sweep crosses."""
    return [
        finding
        for finding in lint(
            [asked_for("data=mnist", f"seed={seed}", *run.split()) for run in runs for seed in range(5)]
        )
        if finding.code == "confounded"
    ]


def test_the_seed_studys_own_design_is_confounded() -> None:
    (told,) = of("norm=bn l1=1e-3", "norm=ln", "norm=gn")
    assert told.message.startswith("l1 changes only together with norm")
    assert "Cross them" in told.message
    assert of("norm=bn l1=1e-3", "norm=bn", "norm=ln", "norm=gn") == []
    assert said("norm=bn,ln,gn l1=0,1e-3", "confounded") == ""


def test_a_norms_own_options_are_not_confounded_with_it() -> None:
    assert of("norm=bn", "norm=gn norm.num_groups=1", "norm=gn norm.num_groups=2") == []


def test_what_an_optimizer_brings_is_not_confounded_with_it() -> None:
    assert of("optimizer=sgd", "optimizer=adamw") == []
    (told,) = of("optimizer=sgd lr=0.2", "optimizer=adamw")
    assert told.message.startswith("lr changes only together with optimizer")


def test_a_learning_rate_of_each_norms_own_may_be_fair() -> None:
    (told,) = of("norm=bn lr=0.2", "norm=ln lr=0.05")
    assert "fair if each norm's was chosen by val_acc" in told.message
    assert "effects cannot be told apart" in of("norm=bn dropout=0.2", "norm=ln")[0].message


@pytest.mark.parametrize(
    "factor",
    [
        "lr=0.1,0.2",
        "batch_size=64,128",
        "epochs=5,10",
        "l1=1e-4,1e-3",
        "optimizer.weight_decay=1e-4,1e-3",
        "schedule=onecycle,constant",
    ],
)
def test_selection_on_the_test_set(factor: str) -> None:
    assert factor.partition("=")[0] in said(f"{factor} val_size=0", "selection")
    assert "val_size=null" in said(f"{factor} val_size=0", "selection")
    assert said(factor, "selection") == "", "images are held out"


def test_what_is_compared_is_not_chosen() -> None:
    for factor in ("norm=bn,ln", "l1=0,1e-3", "dropout=0,0.1", "placement=pre,post"):
        assert said(f"{factor} val_size=0", "selection") == ""
    claim = Claim(claim="c", source="s", of={"batch_size": 8}, against={"batch_size": 128}, expect="lower")
    study = Study(question="?", claims=[claim])
    assert said("batch_size=8,128 val_size=0", "selection", study) == ""
    assert "lr has several values" in said("batch_size=8,128 lr=0.1,0.2 val_size=0", "selection", study)


def test_the_best_epoch_of_a_test_curve() -> None:
    assert "best epoch of a test curve" in said("norm=bn,ln test_curve=true val_size=0", "selection")
    assert said("norm=bn,ln test_curve=true", "selection") == ""
    assert said("norm=bn,ln test_curve=true val_size=0", "selection", STUDY) == "", "its file says what it is for"


def test_norms_at_one_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    told = said("norm=bn,ln", "learning-rate")
    assert told.startswith("bn, ln are compared at one lr (0.1)")
    assert "lr=0.05,0.1,0.2" in told
    for silent in ("norm=bn,ln lr=0.05,0.1", "norm=bn l1=0,1e-3", "norm=gn norm.num_groups=1,2"):
        assert said(silent, "learning-rate") == ""
    for studies in (["replication"], ["learning_rate", "replication"]):
        monkeypatch.setattr("normlab.lint.comparison.choices", lambda _, names=studies: names)
        assert ("study=learning_rate" in said("norm=bn,ln", "learning-rate")) == ("learning_rate" in studies)


def test_batch_sizes_at_one_learning_rate() -> None:
    assert "Batches of 8, 128 are compared at one lr" in said("batch_size=8,128", "learning-rate")
    assert said("batch_size=8,128 lr_per=128", "learning-rate") == ""
    assert said("batch_size=8,128 lr=0.01,0.1", "learning-rate") == ""


# Seeds


def test_too_few_seeds_for_the_margin() -> None:
    """As many as are asked for are enough, and one fewer is not."""
    ask = "norm=bn,ln lr=0.05,0.1 seed='range({})'"
    spread = Spread(0.4, "as seen")
    told = said(ask.format(5), "seeds", STUDY, spread)
    needed = int(told.partition("range(")[2].partition(")")[0])
    assert "0.5 pp, the study's margin" in told
    assert "7 questions" in told, (
        "two effects, whether they depend on each other, and each setting against two controls"
    )
    assert "0.4 pp per run (as seen)" in told
    assert said(ask.format(needed), "seeds", STUDY, spread) == ""
    assert said(ask.format(needed - 1), "seeds", STUDY, spread) != ""
    z, power = 2.69, 0.84  # normal quantiles of 1 - 0.05/7/2 and of 0.8; z²/2 more runs for t (Guenther 1981)
    assert needed == pytest.approx(2 * ((z + power) * 0.4 / 0.5) ** 2 + z**2 / 2 / 4, abs=1.5)


def test_a_large_margin_takes_few_seeds() -> None:
    assert said("norm=bn,ln seed=0,1,2", "seeds", Study(question="?", margin=5.0)) == ""


def test_one_seed_has_no_interval() -> None:
    for study in (None, Study(question="?", margin=50.0)):
        assert said("norm=bn,ln", "seeds", study).startswith("One seed per setting")
    assert said("norm=bn seed=0,1", "seeds", STUDY) == "", "nothing is compared"


def test_seeds_without_a_study() -> None:
    assert "4 seeds per setting are too few" in said("norm=bn,ln seed='range(4)'", "seeds")
    assert said("norm=bn,ln seed='range(5)'", "seeds") == ""


def record(seed: int, acc: float, *words: str, data: str = "mnist") -> Record:
    settings = asked_for(f"data={data}", f"seed={seed}", *words)
    return Record(
        status="completed",
        config=settings.model_dump(),
        config_hash=settings.config_hash(),
        setting=settings.setting(),
        seed=seed,
        metrics={"test_acc": acc},
    )


def test_the_spread_of_finished_runs_is_pooled_over_settings() -> None:
    accs = {"bn": [0.990, 0.992, 0.991], "ln": [0.995, 0.991, 0.990]}
    records = [record(i, acc, f"norm={norm}") for norm, values in accs.items() for i, acc in enumerate(values)]
    spread = spread_of(records)
    assert spread is not None
    variances = [np.var(np.multiply(values, 100), ddof=1) for values in accs.values()]
    assert spread.sd == pytest.approx(math.sqrt(np.mean(variances)))
    assert "6 runs" in spread.source
    assert spread_of(records[:-1]) is None, "3 degrees of freedom"
    assert spread_of([record(i, 0.99) for i in range(9)]) is None, "no spread"
    assert spread_of([*records, record(0, 0.9, data="digits")]) is None, "two data sets"


def test_the_assumed_spread_is_what_the_replication_has() -> None:
    records = [Record.load(file.parent) for file in (REPOSITORY / "lightning_logs/replication").rglob("result.json")]
    seen, believed = spread_of(records), assumed("mnist")
    assert seen is not None
    assert believed is not None
    assert round(seen.sd, 2) == believed.sd
    digits = assumed("digits")
    assert digits is not None
    assert digits.sd == pytest.approx(100 * math.sqrt(0.993 * 0.007 / 500))
    assert assumed("auto") is None


# A whole study


@pytest.mark.parametrize(
    ("name", "data", "seeds"),
    [
        ("replication", "mnist", "5 seeds per setting are few"),
        ("replication_quick", "digits", "3 seeds per setting are few"),
    ],
)
def test_the_studies_that_come_along(name: str, data: str, seeds: str) -> None:
    """One learning rate for all, and fewer seeds than their margin takes; but nothing is selected or confounded."""
    values = {**sweep_of(name), **protocol(name), "data": data}
    words = " ".join(f"{key}={str(value).lower()}" for key, value in values.items())
    assert len(crossed(words)) in (30, 18)
    told = found(words, Study.named(name))
    assert [finding.code for finding in told] == ["learning-rate", "seeds"]
    assert "bn, ln, gn" in told[0].message
    assert seeds in told[1].message
    assert "questions" in told[1].message


def test_a_fair_sweep_has_no_finding() -> None:
    assert found("norm=none,bn,ln,gn lr=0.05,0.1 seed='range(5)'") == []


def test_two_data_sets_are_two_studies() -> None:
    alone = found("data=mnist norm=bn,ln_elem seed=0,1")
    assert found("data=mnist,kmnist norm=bn,ln_elem seed=0,1") == alone


def test_every_finding_is_a_line() -> None:
    told = found("norm=in,bn,gbn,brn,ln_elem batch_size=1,2,64 l1=1e-4,1e-3 val_size=0 test_curve=true data=digits")
    assert len({finding.code for finding in told}) >= 7
    for finding in told:
        assert "\n" not in finding.message
        assert finding.message.endswith(".")
        assert len(finding.message) < 400


def test_a_long_list_is_cut() -> None:
    assert names(["bn", "ln", "bn"]) == "bn, ln"
    assert names("abcdef") == "a, b, c, d, e, f"
    assert names("abcdefg") == "a, b, c, d, e and 2 more"


# The command line


def launched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> list[str]:
    """The lines on stderr, "launch" where the runs would start."""
    multirun, *overrides = words.split()

    def launch(*_: object) -> None:
        print("launch", file=sys.stderr)

    monkeypatch.setattr(train, "Sweep", lambda *_, **__: SimpleNamespace(run=launch))
    monkeypatch.setattr(train, "run_single", launch)
    overrides += ["data=digits", f"log_dir={tmp_path}"]
    train._do(overrides, multirun == "-m")
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        ("-m norm=bn,ln", 2),
        ("-m norm=bn lr=0.1,0.2 seed=0,1,2,3,4", 0),
        ("one norm=bn", 0),
        ("one norm=in", 1),
        ("one study=replication_quick norm=bn", 1),
    ],
)
def test_it_is_told_before_the_first_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, warnings: int
) -> None:
    *told, last = launched(monkeypatch, tmp_path, capsys, words)
    assert last == "launch"
    assert len(told) == warnings
    assert all(line.startswith("normlab: warning: ") for line in told)


def test_nothing_is_told_where_nothing_is_left_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for job in plan(["norm=bn,ln", "data=digits", f"log_dir={tmp_path}"], multirun=True):
        job.folder.mkdir(parents=True)
        settings = job.settings
        Record(
            status="completed",
            config=settings.model_dump(),
            config_hash=settings.config_hash(),
            setting=settings.setting(),
            seed=0,
        ).save(job.folder)
    assert launched(monkeypatch, tmp_path, capsys, "-m norm=bn,ln") == []


def test_finished_runs_say_what_to_expect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "study=replication_quick norm=bn,ln l1=0 seed=0,1,2,3"
    assert [line for line in launched(monkeypatch, tmp_path, capsys, f"one {words}") if "4 seeds" in line]
    jobs = plan([*words.split(), f"log_dir={tmp_path}"], multirun=False)
    for job in jobs[:-1]:
        done = record(job.settings.seed, 0.99 + job.settings.seed / 1e5, data="digits")
        values = {"config_hash": job.settings.config_hash(), "setting": job.settings.setting()}
        Record(**{**json.loads(json.dumps(done.__dict__)), **values}).save(job.folder)
    told = launched(monkeypatch, tmp_path, capsys, f"one {words}")
    assert not [line for line in told if "seeds" in line], "an sd of 0.001 pp is as good as none"


def test_it_is_told_without_torch() -> None:
    code = (
        "import sys; from normlab.train import _warn; from normlab.settings.plan import plan; "
        "from normlab.settings import Study; "
        "_warn(plan(['study=replication', 'seed=0,1', 'l1=0'], multirun=False), Study.named('replication')); "
        "print(sorted({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"
    assert done.stderr.count("normlab: warning: ") == 2
