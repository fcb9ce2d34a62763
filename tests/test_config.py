"""Settings: what is valid, and when two runs are the same question. test_messages.py has what is refused."""

import itertools
import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from normlab.errors import ConfigError
from normlab.settings import GROUPS, Penalty, Settings, check_recorded, checked, choices, conf_dir, group_values
from normlab.settings.parts import Augment
from normlab.settings.plan import _compositions, compose_config, load, parse, plan


def test_python_and_the_command_line_ask_for_the_same_run() -> None:
    """What is left out is as in conf/, whichever way; a group may be given by its name."""
    assert load() == Settings.model_validate({}) == Settings.model_validate({"norm": {"eps": 1e-5}})
    assert load("norm=gn", "augment=false") == checked({"norm": "gn", "augment": False})
    words = ["optimizer=adamw", "optimizer.eps=1e-6", "net=resnet10", "penalty.scope=conv", "l1=0.1"]
    given = {"net": "resnet10", "penalty": {"scope": "conv"}, "l1": 0.1}
    assert load(*words) == checked(given | {"optimizer": {"name": "adamw", "eps": 1e-6}})
    assert checked({"optimizer": {"momentum": 0.5}}) == load("optimizer.momentum=0.5")


def test_no_type_has_a_default_of_its_own() -> None:
    for model in (Settings, *Settings.__base__.__subclasses__()):
        assert all(field.is_required() for field in model.model_fields.values()), model


def test_an_optimizer_brings_its_usual_rate() -> None:
    usual = float(OmegaConf.load(conf_dir() / "optimizer" / "adamw.yaml").lr)
    assert load("optimizer=adamw").lr == checked({"optimizer": "adamw"}).lr == usual != load().lr
    assert load("optimizer=adamw", "lr=0.02").lr == 0.02
    jobs = plan(["optimizer=sgd,adamw", "data=digits"], multirun=True)
    both = [(0.1, "bn-digits-seed_0"), (usual, "bn-digits-optimizer_adamw-seed_0")]
    assert [(job.settings.lr, job.folder.name) for job in jobs] == both


def test_options_of_a_norm_are_the_given_ones_and_the_usual_others() -> None:
    """momentum=null: the mean of all batches, as in torch; where conf/ has null, null is as if it were not there."""
    by_channels = {"channels_per_group": 1, "eps": 1e-5, "affine": True}
    assert load("norm=gn", "norm.channels_per_group=1").norm.options == by_channels
    assert "channels_per_group" not in load("norm=gn", "norm.channels_per_group=null").norm.options
    assert load("norm=bn", "norm.momentum=null").norm.options["momentum"] is None
    assert load("net=resnet10", "norm=gn", "norm.num_groups=4", "dropout=0").norm.options["num_groups"] == 4


def test_a_rate_for_so_many_images_scales_with_the_batch() -> None:
    assert load("lr=0.1", "batch_size=32").peak_lr == 0.1
    assert load("lr=0.1", "batch_size=32", "lr_per=128").peak_lr == 0.025
    assert load("lr=0.1", "batch_size=512", "lr_per=256").peak_lr == 0.2


def test_augment_is_a_switch_and_two_numbers() -> None:
    assert load("augment=false").augment == Augment(rotation=0.0, shift=0.0)
    assert load("augment=true").augment == Augment(rotation=7.0, shift=2.0)
    assert load("augment.rotation=10").augment == Augment(rotation=10.0, shift=2.0)


def test_the_hash_holds_all_that_changes_the_result_and_nothing_else() -> None:
    usual = load("data=mnist").config_hash()
    same = [
        "log_dir=elsewhere", "name=study", "force=true", "data.root=/x", "data.download=false", "threads=3", "l1=-0.0",
        "optimizer.weight_decay=-0.0", "test_curve=true", "probes=[layers]", "accelerator=auto", "accelerator=cpu",
        "penalty.scope=conv", "penalty.method=proximal",
    ]  # fmt: skip
    other = [
        "seed=1", "norm.eps=1e-4", "norm=ln", "l1=1e-3", "lr=0.2", "norm.momentum=null", "lr=0.10000001", "net.size=32",
        "optimizer=adamw", "dropout=0.1", "placement=pre", "epochs=13", "batch_size=64", "schedule=constant",
        "gradient_clip=null", "augment.shift=1", "optimizer.momentum=0.8", "optimizer.weight_decay=1e-4", "val_size=0",
        "accelerator=gpu", "precision=64-true", "data.name=digits",
    ]  # fmt: skip
    for override in same:
        assert load("data=mnist", override).config_hash() == usual, override
    hashes = [load("data=mnist", override).config_hash() for override in other]
    assert load("data=mnist", "l1=1", "penalty.scope=conv").config_hash() != load("data=mnist", "l1=1").config_hash()
    assert len({usual, *hashes}) == len(other) + 1
    assert load().model_copy(update={"seed": 1}).config_hash() == load("seed=1").config_hash()
    assert len(usual) == 12
    int(usual, 16)


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ("data=mnist norm=ln", "ln-seed_0"),
        ("data=digits norm=ln l1=1e-3 seed=3", "ln-digits-l1_0.001-seed_3"),
        ("data=mnist norm=gn norm.num_groups=1 epochs=20", "gn-num_groups_1-epochs_20-seed_0"),
        ("data=mnist norm=custom norm.target=a.b:Layer norm.options={eps:0.1}", "custom_a.b.Layer-eps_0.1-seed_0"),
        ("data=mnist l1=1e-3 penalty.method=proximal", "bn-l1_0.001-method_proximal-seed_0"),
        ("data=mnist penalty.method=proximal accelerator=auto", "bn-seed_0"),
        ("data=mnist accelerator=gpu", "bn-accelerator_gpu-seed_0"),
        ("data=mnist net=resnet10 optimizer=adamw", "bn-net_resnet10-optimizer_adamw-seed_0"),
    ],
)
def test_a_folder_is_named_by_what_departs_from_the_defaults(words: str, slug: str) -> None:
    assert load(*words.split()).slug() == slug


def test_a_setting_is_a_run_without_its_seed() -> None:
    runs = [load("data=digits", "norm=gn", "norm.num_groups=1", f"seed={seed}") for seed in (0, 5)]
    assert runs[0].setting() == runs[1].setting() == {"norm": "gn", "l1": 0.0, "norm.num_groups": 1}
    custom = load("norm=custom", "norm.target=a.b:Layer", "norm.options={eps: 0.1}")
    assert custom.setting() == {"norm": "custom", "l1": 0.0, "norm.target": "a.b:Layer", "norm.eps": 0.1}


def by_hydra(*words: str) -> Settings:
    return parse(compose_config(words))


def test_plan_shares_hydras_work_and_gives_what_hydra_would() -> None:
    """Runs that differ in numbers, words, true, false and null alone come from one composition."""
    axes = [("norm=bn", "norm=gn"), ("augment=true", "augment=false"), ("gradient_clip=null", "gradient_clip=1.5")]
    axes += [("l1=0", "l1=1E-2"), ("norm.eps=1",), ("placement=post", "placement=pre")]
    words = [f"{first}{''.join(',' + word.partition('=')[2] for word in rest)}" for first, *rest in axes]
    shared = ["data=digits", "name=sweep"]
    with patch("normlab.settings.plan.compose_config", wraps=compose_config) as compositions:
        jobs = plan([*shared, *words], multirun=True)
    assert compositions.call_count == 2, "a norm each"
    assert [job.settings for job in jobs] == [by_hydra(*shared, *job) for job in itertools.product(*axes)]
    assert len({job.settings.config_hash() for job in jobs}) == len({job.folder for job in jobs}) == 32


def test_a_script_that_loads_on_and_on_keeps_few_compositions() -> None:
    """Those that differ in a number share one."""
    before = load("norm=gn", "seed=7")
    with patch("normlab.settings.plan.compose_config", wraps=compose_config) as compositions:
        assert [load("norm=gn", f"seed={seed}").seed for seed in (8, 9)] == [8, 9]
    assert compositions.call_count == 0
    for eps in range(1, 80):
        assert load(f"optimizer.betas=[0.5,{eps / 100}]", "optimizer=adamw").optimizer.betas[1] == eps / 100  # type: ignore[union-attr]
    assert len(_compositions) <= 64
    assert load("norm=gn", "seed=7") == before


@pytest.mark.parametrize(
    ("words", "augment"),
    [
        ("augment.rotation=3 augment={rotation:5,shift:1}", {"rotation": 5.0, "shift": 1.0}),
        ("augment={rotation:5,shift:1} augment.rotation=3", {"rotation": 3.0, "shift": 1.0}),
        ("augment.rotation=3 augment=false", {"rotation": 0.0, "shift": 0.0}),
        ("augment=false augment={rotation:5,shift:1}", {"rotation": 5.0, "shift": 1.0}),
    ],
)
def test_a_setting_and_a_part_of_it_count_in_their_order(words: str, augment: dict[str, float]) -> None:
    own = words.split()
    found = plan(["data=digits", *own], multirun=False)[0].settings, load(*own), by_hydra(*own)
    assert [each.augment.model_dump() for each in found] == [augment] * 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("optimizer.momentum=0.5", "norm.momentum=0.5"),
        ("lr=0.1000001", "lr=0.1000002"),
        ("norm=custom norm.target=mine:RMS", "norm=custom norm.target=yours:RMS"),
        ("norm=custom norm.target=a:B norm.options={shift:1}", "norm=custom norm.target=a:B augment.shift=1"),
        ("norm=custom norm.target=a:B norm.options={m:X}", "norm=custom norm.target=a:B norm.options={m:x}"),
    ],
)
def test_two_configurations_have_two_folders(one: str, other: str) -> None:
    first, second = (load("data=mnist", *words.split()) for words in (one, other))
    assert first.config_hash() != second.config_hash()
    assert first.slug() != second.slug()


valid = st.fixed_dictionaries({
    "seed": st.integers(0, 2**32 - 1), "l1": st.floats(0, 10, allow_subnormal=False), "lr": st.floats(1e-6, 10),
    "dropout": st.floats(0, 0.99), "epochs": st.integers(1, 1000), "val_size": st.none() | st.integers(0, 10**6),
    "placement": st.sampled_from(["post", "pre"]), "augment": st.booleans(),
})  # fmt: skip


@given(valid)
@settings(max_examples=25, deadline=None)
def test_any_valid_setting_survives_the_command_line(values: dict[str, Any]) -> None:
    """What is typed, what is parsed, what is written to result.json and read again are the same."""
    parsed = load("data=digits", *(f"{key}={json.dumps(value)}" for key, value in values.items()))
    for key in values.keys() - {"augment"}:
        assert getattr(parsed, key) == values[key]
    again = Settings.model_validate(json.loads(json.dumps(parsed.model_dump())))
    assert again == parsed
    assert again.config_hash() == parsed.config_hash()
    assert parsed.slug().isprintable()
    assert not set(parsed.slug()) & set("=/\\ ")


def test_no_file_of_conf_is_forgotten_by_the_types() -> None:
    values = OmegaConf.load(conf_dir() / "config.yaml")
    assert {str(key) for key in values} - {"defaults", "hydra"} == set(Settings.model_fields) - set(GROUPS)
    for model, group in ((Penalty, values.penalty), (Augment, values.augment)):
        assert set(group) == set(model.model_fields)
    for group in GROUPS:
        for name in choices(group):
            own = {"custom": {"target": "a:b"}, "folder": {"root": "."}}.get(name, {})
            assert getattr(checked({group: group_values(group, name) | own}), group).name == name


@pytest.mark.parametrize(
    "options", [{"eps": float("inf")}, {"eps": [1.0, float("nan")]}, {"a": {"b": float("-inf")}}], ids=str
)
def test_numbers_that_json_cannot_hold_are_refused_before_training(options: dict[str, Any]) -> None:
    for norm in ({"name": "custom", "target": "a:B", "options": options}, {"name": "bn", "options": options}):
        with pytest.raises(ConfigError, match=r"norm\.\w+.*(finite|number|no option|above 0)") as caught:
            checked({"norm": norm})
        assert "\n" not in str(caught.value)


def test_options_of_a_layer_of_ones_own_keep_their_names() -> None:
    options = {"size": 3, "name": "y", "target": "z", "num_channels": 4, "options": 1}
    words = ["norm=custom", "norm.target=a:B", f"norm.options={json.dumps(options).replace(chr(34), '')}"]
    settings = load(*words)
    assert settings.norm.options == options
    assert settings.norm.target == "a:B"
    named = {f"norm.{key}" for key in ("size", "num_channels")} | {f"norm.options.{key}" for key in ("name", "target")}
    assert named < set(settings.setting())
    assert checked(settings.model_dump()) == settings


def test_records_of_other_versions_are_read() -> None:
    record = load("norm=gn", "data=mnist").model_dump()
    check_recorded(record)
    old = {key: value for key, value in record.items() if key not in ("net", "optimizer", "lr_per")}
    check_recorded(old | {"momentum": 0.9, "a_new_one": {"x": 1}, "schedule": "cosine"})
    for damage in ({"lr": "fast"}, {"epochs": 1.5}, {"lr": None}, {"probes": "layers"}, {"penalty": 1}, {"l1": [1]}):
        with pytest.raises(ValueError, match=next(iter(damage))):
            check_recorded(old | damage)
