"""Studies: their files, what they sweep, what a command line makes of them."""

from functools import cache
from pathlib import Path

import pytest

from normlab.errors import NormlabError
from normlab.lint import lint
from normlab.norms import CATALOGUE
from normlab.settings import STUDY_FILE, Claim, Study, choices, conf_dir, protocol, sweep_of
from normlab.settings.plan import Job, load, plan

STUDIES = choices("study")


@cache
def planned(name: str) -> list[Job]:
    """A study's runs; one of a custom layer needs the layer."""
    own = ["norm.target=torch.nn:BatchNorm2d"] * ("custom" in sweep_of(name)["norm"].split(","))
    return plan([f"study={name}", *own], multirun=False)


def folders(*overrides: str) -> list[str]:
    return [job.folder.name for job in plan(list(overrides), multirun=False)]


@pytest.mark.parametrize("name", [name for name in STUDIES if name.endswith("_quick")])
def test_a_quick_form_starts_from_its_study(name: str) -> None:
    """It says what differs, and no more: about ten lines."""
    text = (conf_dir() / "study" / f"{name}.yaml").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 20
    whole = name.removesuffix("_quick")
    assert Study.named(name).factors == Study.named(whole).factors
    assert set(protocol(name)) >= set(protocol(whole)) - {"name"}
    assert Study.named(name).claims in (Study.named(whole).claims, [])
    assert {job.settings.data.name for job in planned(name)} == {"digits"}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_file_is_complete(name: str) -> None:
    study = Study.named(name)
    assert study.question.endswith((".", "?"))
    assert "seed" in sweep_of(name)
    assert set(study.factors) == set(sweep_of(name)) - {"seed"}
    assert protocol(name)["name"] == name, "its runs lie in a folder of its name"
    jobs = planned(name)
    assert len({job.folder for job in jobs}) == len(jobs)
    assert {job.folder.parent.name for job in jobs} == {name}
    assert {job.settings.threads for job in jobs} == {1}, "the bits do not depend on how many runs are left"
    settings = {str(job.settings.setting()) for job in jobs}
    first = {str(job.settings.setting()) for job in jobs[: len(settings)]}
    assert first == settings, "seeds are the slowest: an interrupted study has about as many seeds of each setting"


@pytest.mark.parametrize("name", STUDIES)
def test_it_starts_without_a_warning_where_nothing_is_to_be_done(name: str) -> None:
    every = [job.settings for job in planned(name)]
    ignore = every[0].ignore
    assert [each.code for each in lint(every, Study.named(name), None, ignore)] == []
    if ignore and not name.endswith("_quick"):
        codes = {each.code for each in lint(every, Study.named(name))}
        assert codes == {*ignore}, "nothing is ignored that is not reported"


def test_the_replication_crosses_norm_and_l1() -> None:
    jobs = plan(["study=replication"], multirun=False)
    cells = {(job.settings.norm.name, job.settings.l1) for job in jobs}
    assert cells == {(norm, l1) for norm in ("bn", "ln", "gn") for l1 in (0.0, 1e-3)}
    for job in jobs:
        assert job.settings.val_size == 0
        assert job.settings.test_curve
        assert job.settings.epochs <= 20
        assert job.settings.data.name == "mnist"
    assert {job.settings.seed for job in jobs} == set(range(30))


def test_the_study_of_norms_has_every_one_of_the_catalogue() -> None:
    norms = sweep_of("norms")["norm"].split(",")
    assert sorted(norms) == sorted(CATALOGUE)


def test_a_study_needs_no_m_and_folders_tell_the_factors_only() -> None:
    assert folders("study=replication", "seed=3", "norm=ln") == ["ln-seed_3", "ln-l1_0.001-seed_3"]


def test_values_given_narrow_or_extend_it() -> None:
    assert folders("study=replication", "norm=bn", "l1=0", "seed=0,7") == ["bn-seed_0", "bn-seed_7"]
    assert len(folders("study=replication", "seed=range(10)")) == 60
    assert "none-seed_0" in folders("study=replication", "norm=none,bn", "seed=0")
    extended = folders("study=replication", "norm=bn", "l1=0", "seed=0", "lr=0.05,0.1")
    assert extended == ["bn-lr_0.05-seed_0", "bn-seed_0"]


def test_another_protocol_is_another_folder() -> None:
    """What departs from the study is named, so that it can never be taken for the study's own run."""
    assert folders("study=replication", "norm=bn", "l1=0", "seed=0", "epochs=2") == ["bn-epochs_2-seed_0"]


def test_a_studys_run_asks_what_a_single_run_asks() -> None:
    own = "data=mnist", "epochs=20", "batch_size=32", "optimizer.weight_decay=1e-4", "val_size=0", "test_curve=true"
    (job,) = plan(["study=replication", "norm=bn", "l1=0", "seed=0"], multirun=False)
    assert job.settings.config_hash() == load(*own).config_hash()


def test_the_order_of_words_does_not_matter() -> None:
    assert folders("seed=0", "norm=bn", "study=replication") == folders("study=replication", "norm=bn", "seed=0")


def test_it_lies_beside_its_runs(tmp_path: Path) -> None:
    study = Study.named("replication")
    assert Study.find(tmp_path) is None
    study.save(tmp_path)
    assert Study.find(tmp_path) == study


@pytest.mark.parametrize(
    "text", ["question: [", "question: 1\nmargin: -3", "- a", "\0", "!!python/object:os.system {}"]
)
def test_a_damaged_study_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / STUDY_FILE).write_text(text)
    with pytest.raises(NormlabError, match="is damaged") as told:
        Study.find(tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"expect": "lower", "by": 1.5}, "go together"),
        ({"expect": "similar", "by": 1.5, "give": 0.5}, "margin, not a size"),
        ({"expect": "lower", "margin": 0.5}, "no margin"),
        ({"expect": "differs"}, "expect"),
        ({"expect": "lower", "measure": "speed"}, "measure"),
    ],
)
def test_a_claim_says_what_can_be_tested(values: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Claim.model_validate({"claim": "c", "source": "s", "of": {"norm": "bn"}, "against": {"norm": "ln"}} | values)
