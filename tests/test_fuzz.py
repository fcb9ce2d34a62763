"""Any configuration trains two steps or is refused in one line before training; any bytes are refused in one line.

`FUZZ=5000 pytest tests/test_fuzz.py` tries that many of each kind.
"""

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer
from made_up_runs import several

from normlab.errors import NormlabError
from normlab.report import main as report
from normlab.settings import Settings
from normlab.settings.page import entries
from normlab.settings.plan import load, plan
from normlab.training.build import load_array, make_trainer
from normlab.training.callbacks import RunCheckpoints
from normlab.training.device import set_threads
from normlab.training.files import resume_point
from normlab.training.networks import Member, NetworkArray
from normlab.training.ranks import check_shares
from normlab.training.run import run

MANY = int(os.environ.get("FUZZ", "0"))
QUICK = {"deadline": None, "suppress_health_check": list(HealthCheck)}

# Values that a setting may have, and values that none should. Half of what is drawn is meant to fit.
WHOLE = [0, 1, 2, 3, 16, 127, 1297, 1500, 10**4, 10**9, 2**32 - 1]
REAL = [0, 1e-300, 1e-12, 1e-3, 0.1, 0.5, 0.999, 1.0, 7, 180, 1e6, 1e30, 1e300]
# fmt: off
JUNK = [
    "-1", "-0.5", "nan", "inf", "-inf", "null", "true", "false", "abc", "''", "[]", "[1,2]", "{a: 1}", "1e999", "ü",
    "0x10", "1_000", "${seed}", "${nowhere}", "???", "' '", "a.b", "../..", "2**3", "1" + 22 * "0", "1e-400",
]
# fmt: on
LEFT_OUT = ("study", "net", "data.", "until", "max_seeds", "ignore", "log_dir", "force", "logger", "norm.options")
OWN: dict[str, list[Any]] = {
    "norm.target": ["torch.nn:BatchNorm2d", "torch.nn:Linear", "nowhere:Layer"],
    "data": ["digits"],
    "augment": ["true", "false"],
    "optimizer.betas": ["[0.8,0.9]", "[0,0]"],
    "accelerator": ["cpu", "auto"],
    "devices": [1, 1, 1, 2, 3],
    "threads": [1, 2, "null"],
    "name": ["x", "'ein name'", "null"],
}


def fitting(said: str) -> list[Any]:
    """Values for a setting of which docs/settings.md says this."""
    what = said.removesuffix(" or null")
    null = ["null"] * (what != said)
    if what == "true or false":
        return ["true", "false"]
    if what.startswith("list of "):
        each = what.removeprefix("list of ").split(", ")
        return ["[]", *(f"[{one}]" for one in each), f"[{','.join(each)}]"]
    numbers = {"whole": WHOLE, "a": WHOLE, "number,": REAL, "above": REAL, "between": REAL, "finite": REAL}
    if what.endswith("or more"):
        return [*WHOLE, *REAL]
    return [*numbers.get(what.split(" ")[0], what.split(", ")), *null]


SAID = {entry.name: entry.values for entry in entries() if entry.values not in ("", "swept")}
FITTING = {name: fitting(said) for name, said in SAID.items() if not name.startswith(LEFT_OUT)} | OWN


@st.composite
def overrides(draw: st.DrawFn) -> list[str]:
    keys = draw(st.lists(st.sampled_from(sorted(FITTING)), max_size=8, unique=True))
    words = []
    for key in keys:
        fits = draw(st.integers(0, 19)) > 0
        words.append(f"{key}={draw(st.sampled_from(FITTING[key] if fits else JUNK))}")
    if draw(st.integers(0, 19)) == 0:
        words.append(draw(st.text(max_size=12)))
    return words


def one_line(error: BaseException) -> None:
    assert str(error).strip(), "it says why"
    assert len(str(error).splitlines()) == 1, str(error)


def two_steps(asked: Settings) -> None:
    """As `run` trains, without what it leaves; on one device (tests/test_devices.py has several)."""
    set_threads(asked)
    [data], [model] = load_array([asked])
    check_shares(asked, data)
    module = NetworkArray([Member(asked, data, model)])
    trainer = make_trainer(asked, [Two()], RunCheckpoints(module))
    trainer.fit(module, datamodule=module.data)
    assert trainer.global_step >= 1


class Two(Callback):
    """Stops after two steps."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= 2


@given(overrides())
@example(["batch_size=1", "norm=in"])
@example(["train_size=1", "val_size=0", "norm=bn"])
@example(["epochs=1000000000"])
@example(["norm=custom", "norm.target=torch.nn:BatchNorm2d"])
@settings(max_examples=MANY or 40, **QUICK)
def test_any_configuration_trains_two_steps_or_is_refused_in_one_line(words: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            asked = load("data=digits", "threads=1", *words)
            if asked.norm.target is not None:
                from normlab.settings.custom import check_custom

                check_custom(asked.norm)
            two_steps(asked)
        except NormlabError as error:
            one_line(error)


@given(st.lists(overrides(), min_size=1, max_size=2), st.booleans())
@settings(max_examples=MANY or 60, **QUICK)
def test_any_command_line_is_a_plan_or_one_line(parts: list[list[str]], multirun: bool) -> None:
    try:
        jobs = plan([word for words in parts for word in words], multirun=multirun)
        assert jobs
        assert len({job.folder for job in jobs}) == len(jobs)
    except NormlabError as error:
        one_line(error)


BYTES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.sampled_from(b"{ [] {} null PK\x03\x04 \x93NUMPY epoch\n epoch,seconds\n1 \x80\x04.".split(b" ")),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("good")
    several(place, "bn gn", 2)
    return place


@pytest.mark.parametrize("name", ["result.json", "metrics.csv", "predictions.npz", "support.npz", "probes.csv"])
def test_any_bytes_in_a_folder_are_reported_or_refused_in_one_line(good: Path, name: str, capsys) -> None:
    folder = sorted(file.parent for file in good.rglob("result.json"))[0]
    before = (folder / name).read_bytes() if (folder / name).exists() else None

    @given(BYTES, st.integers(0, 2000))
    @settings(max_examples=MANY or 6, **QUICK)
    def try_them(noise: bytes, at: int) -> None:
        """Noise alone, and noise in the midst of what was there."""
        for content in (noise, (before or b"")[:at] + noise, (before or b"")[:at] + noise + (before or b"")[at:]):
            (folder / name).write_bytes(content)
            capsys.readouterr()
            code = report([str(good), "--no-figures", "--out", str(good / "out")])
            told = capsys.readouterr().err
            assert code in (0, 2)
            assert "Traceback" not in told
            if code:
                assert told.count("\n") == 1, told
                assert folder.name in told or "cannot be compared" in told

    try:
        try_them()
    finally:
        (folder / name).unlink()
        if before is not None:
            (folder / name).write_bytes(before)


@given(BYTES)
@settings(max_examples=MANY or 60, **QUICK)
def test_any_bytes_as_a_checkpoint_are_a_reason_in_one_line(tmp_path_factory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    (folder / "last.ckpt").write_bytes(noise)
    found = resume_point(load(), folder)
    assert isinstance(found, str)
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("name", ["result.json", "last.ckpt", "metrics.csv", "probes.csv"])
def test_training_goes_over_any_bytes(tmp_path: Path, name: str, undrawn: None) -> None:
    """What a stranger left in a run's folder does not stop the run."""
    asked = load("data=digits", "norm=none", "epochs=1", "train_size=64", "val_size=0", "threads=1")
    run(asked, tmp_path)
    for noise in (b"", b"\x00\xff", b"epoch\n1\n"):
        (tmp_path / "result.json").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(noise)
        assert run(asked, tmp_path).status == "completed"
