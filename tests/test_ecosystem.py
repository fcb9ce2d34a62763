"""`Classifier` as users of torch and Lightning use it: their trainers, loaders, precisions, callbacks and tools."""

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.cli import LightningCLI
from PIL import Image
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, Subset, TensorDataset

from normlab.data.datamodule import ImageData
from normlab.data.folder import image_file
from normlab.errors import ConfigError
from normlab.settings.plan import load
from normlab.training import Classifier


def small(**more: Any) -> ImageData:
    return ImageData("digits", train_size=64, val_size=40, batch_size=16, **more)


def trainer(**more: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    return Trainer(**{"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False, **quiet, **more})


@pytest.fixture(scope="module")
def fitted() -> tuple[Classifier, ImageData]:
    torch.manual_seed(0)
    model, data = Classifier("bn"), small()
    trainer(max_epochs=2).fit(model, datamodule=data)
    return model, data


# Settings by name


def test_arguments_are_settings_with_the_values_of_conf() -> None:
    model, settings = Classifier(), load()
    for name in ("dropout", "placement", "weight_standardization", "l1", "lr", "schedule"):
        assert model.hparams[name] == getattr(settings, name)
    assert model.hparams["optimizer"] == settings.optimizer.model_dump()
    adamw = Classifier({"name": "gn", "num_groups": 2}, optimizer="adamw")
    assert adamw.hparams["lr"] == load("optimizer=adamw").lr
    assert adamw.hparams["norm"]["options"]["num_groups"] == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"l1": -1.0}, ["l1=-1"]),
        ({"norm": "foo"}, ["norm=foo"]),
        ({"optimizer": "foo"}, ["optimizer=foo"]),
        ({"optimizer": {"name": "sgd", "momentum": 2.0}}, ["optimizer.momentum=2.0"]),
        ({"penalty": {"method": "foo"}, "l1": 1.0}, ["l1=1", "penalty.method=foo"]),
    ],
)
def test_a_wrong_argument_is_refused_as_on_the_command_line(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        Classifier(**arguments)
    with pytest.raises(ConfigError) as typed:
        load(*words)
    assert str(error.value).partition(": ")[2] == str(typed.value).partition(": ")[2]


# Trainers


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "bf16-mixed", "64-true"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_every_precision_fits_validates_tests_and_predicts(precision: str, optimizer: str) -> None:
    model, data = Classifier("gn", optimizer=optimizer, l1=1e-4, penalty={"method": "proximal"}), small()
    loop = trainer(precision=precision)
    loop.fit(model, datamodule=data)
    assert loop.callback_metrics["ce/train"].isfinite()
    assert loop.callback_metrics["acc/val"] >= 0
    [scores] = loop.test(model, datamodule=data, verbose=False)
    assert np.isfinite(scores["ce/test"])
    [train, test] = loop.predict(model, datamodule=data)
    assert torch.cat(train).shape == (64, 10)
    assert torch.cat(test).exp().sum(1) == pytest.approx(1, abs=0.02)


def test_trainer_test_and_the_best_checkpoint(tmp_path: Path) -> None:
    """Scores of `Trainer.test` are those of a plain loop over the test images."""
    model, data = Classifier("bn"), small()
    best = ModelCheckpoint(tmp_path, monitor="acc/val", mode="max")
    loop = trainer(max_epochs=2, callbacks=[best], enable_checkpointing=True)
    loop.fit(model, datamodule=data)
    for where in (None, "best"):
        how = {"ckpt_path": where, "weights_only": True, "verbose": False}
        [scores] = loop.test(None if where else model, datamodule=data, **how)
        using = Classifier.load_from_checkpoint(best.best_model_path).eval() if where else model.eval()
        with torch.no_grad():
            right = using(data.test.images / 255).argmax(1) == data.test.labels
        assert scores["acc/test"] == pytest.approx(right.float().mean().item())
    untrained = trainer().test(Classifier("ln"), datamodule=data, verbose=False)
    assert set(untrained[0]) >= {"acc/test", "ce/test"}


def test_loaders_alone_train_as_the_data_module_does() -> None:
    models = []
    for alone in (False, True):
        torch.manual_seed(0)
        models.append(Classifier("bn", dropout=0.1))
        data = small()
        loop = trainer(max_epochs=2, limit_val_batches=0)
        torch.manual_seed(1)
        loop.fit(models[-1], data.train_dataloader()) if alone else loop.fit(models[-1], datamodule=data)
    for name, value in models[0].state_dict().items():
        assert torch.equal(value, models[1].state_dict()[name]), name
    assert models[1].pixel_std > 0.1
    [scores] = loop.test(models[1], data.test_dataloader(), verbose=False)
    assert scores["acc/test"] > 0


def test_images_of_ones_own_in_a_plain_loader() -> None:
    """Without a data set that knows its pixels, images go to the network as they are."""
    images, labels = torch.rand(32, 1, 28, 28), torch.randint(10, (32,))
    model = Classifier("bn", schedule="constant")
    trainer().fit(model, DataLoader(TensorDataset(images, labels), 8))
    assert (model.pixel_mean.item(), model.pixel_std.item()) == (0, 1)
    assert torch.cat(trainer().predict(model, DataLoader(images, 8))).shape == (32, 10)


def test_lightning_cli(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["fit", "--model.norm=gn", "--model.l1=1e-4", "--model.optimizer=adamw", "--data.name=digits"]
    words += ["--data.train_size=64", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    monkeypatch.setattr("sys.argv", ["cli"])
    cli = LightningCLI(Classifier, ImageData, args=words)
    assert cli.model.hparams["norm"]["name"] == "gn"
    assert cli.model.hparams["l1"] == 1e-4
    assert cli.model.settings.optimizer.name == "adamw"
    assert cli.trainer.global_step == 1
    [file] = here.rglob("*.ckpt")
    again = Classifier.load_from_checkpoint(file)
    assert again.hparams == cli.model.hparams


# Schedules


class Stop(Callback):
    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.should_stop = trainer.current_epoch == 1


def test_a_training_without_an_end() -> None:
    loop = trainer(max_epochs=-1, callbacks=[Stop()])
    loop.fit(Classifier("bn", schedule="constant"), datamodule=small())
    assert loop.current_epoch == 2
    with pytest.raises(ConfigError, match=r"schedule=onecycle has to know its length: set .*schedule=constant"):
        trainer(max_epochs=-1).fit(Classifier("bn"), datamodule=small())
    trainer(max_epochs=-1, max_steps=3).fit(Classifier("bn"), datamodule=small())


def test_a_schedule_of_one_step_takes_it_at_the_learning_rate() -> None:
    model = Classifier("bn", lr=0.05)
    trainer(max_steps=1).fit(model, datamodule=small())
    assert model.lr_used == 0.05


# Penalties


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("method", ["subgradient", "proximal"])
def test_l1_moves_no_frozen_parameter(method: str, optimizer: str) -> None:
    model = Classifier("bn", l1=1e-2, penalty={"method": method, "scope": "all"}, optimizer=optimizer)
    frozen = [*model.net.parameters()][:2]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trainer().fit(model, datamodule=small())
    for name, value in model.net.named_parameters():  # a shift may stay at 0: the threshold keeps it there
        moved = not torch.equal(value, before[f"net.{name}"])
        assert moved == value.requires_grad or (value.requires_grad and name.endswith("bias")), name


@pytest.mark.parametrize("skipped", [False, True])
def test_no_threshold_after_a_step_that_the_gradient_scaler_skips(skipped: bool) -> None:
    """As with 16-mixed: torch's scaler leaves the step out where a gradient is not finite."""
    model = Classifier("bn", l1=1.0, penalty={"method": "proximal"})
    optimizer, _ = model.optimizer(1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    loss = model(torch.rand(4, 1, 28, 28)).mean()
    scaler.scale(loss).backward()
    if skipped:
        next(model.net.parameters()).grad.fill_(torch.inf)
    before = copy.deepcopy(model.net.state_dict())
    scaler.step(optimizer)
    scaler.update()
    same = [torch.equal(value, before[name]) for name, value in model.net.named_parameters()]
    assert all(same) if skipped else not any(same)


# Weight averaging and batch statistics


def test_averaged_weights_and_their_statistics() -> None:
    """Lightning's callback and torch's `update_bn` on our loader: running averages move. test_norm_tools.py has what
    they become, for every norm."""
    model, data = Classifier("bn", schedule="constant", lr=0.01), small(rotation=0.0, shift=0.0)
    averaging = StochasticWeightAveraging(swa_lrs=1e-3, swa_epoch_start=1, annealing_epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(max_epochs=3, callbacks=[averaging], limit_val_batches=0).fit(model, datamodule=data)
    assert model(data.test.images[:8] / 255).isfinite().all()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    update_bn(data.train_dataloader(), model)
    after = dict(model.named_buffers())
    assert all(after[name].isfinite().all() and not torch.equal(value, after[name]) for name, value in before.items())


# A checkpoint and a person's own images


def test_predict_takes_images_as_people_have_them(fitted: tuple[Classifier, ImageData], tmp_path: Path) -> None:
    model, data = fitted
    image = data.test.images[0, 0]
    expected = model.eval()(image[None, None] / 255).exp().detach()
    Image.fromarray(image.numpy()).save(tmp_path / "digit.png")
    forms = [image, image.numpy(), image[None], image[None, None], image / 255, image.double() / 255]
    model.train()
    for form in [*forms, tmp_path / "digit.png", str(tmp_path / "digit.png")]:
        got = model.predict(form)
        assert (got.shape, got.dtype) == ((1, 10), torch.float32)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    assert model.training, "the mode is given back"
    assert model.predict(data.test.images).sum(1) == pytest.approx(1, abs=1e-5)
    few = data.test.images[:3, 0]
    torch.testing.assert_close(model.predict(few.numpy()[::-1]), model.predict(few.flip(0)))


def test_predict_reads_a_file_as_a_folder_of_images_is_read(fitted, tmp_path: Path) -> None:
    model = fitted[0]
    wide = np.random.default_rng(0).integers(0, 256, (40, 70), dtype=np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert torch.equal(model.predict(tmp_path / "wide.png"), model.predict(image_file(tmp_path / "wide.png", (28, 28))))
    Image.fromarray(wide.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png has more than 8 bits per pixel: save it with 8"):
        model.predict(tmp_path / "deep.png")


def test_a_subset_has_the_pixels_of_its_whole() -> None:
    data, model = small(), Classifier()
    data.setup("fit")
    model._take_pixels(Subset(Subset(data.train, range(64)), range(8)))
    assert (model.pixel_mean.item(), model.pixel_std.item()) == pytest.approx((data.mean, data.std))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(3, 28, 27), r"shape \(3, 28, 27\): this network takes \(N, 1, 28, 28\)"),
        (torch.zeros(2, 3, 28, 28), "this network takes"),
        (torch.full((28, 28), 255.0), r"outside of \[0, 1\]"),
        (torch.full((28, 28), torch.nan), r"outside of \[0, 1\]"),
        (np.zeros((28, 28), dtype=np.int64), "give them as uint8"),
        (Path(__file__), "cannot be read as an image"),
        (Path("no.png"), r"^no\.png cannot be read as an image: .*No such file"),
        (Path(__file__).parent, "cannot be read as an image: .*Is a directory"),
    ],
)
def test_predict_refuses_what_it_cannot_tell(fitted: tuple[Classifier, ImageData], images: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        fitted[0].predict(images)
    assert "\n" not in str(error.value)


def test_a_checkpoint_with_a_layer_of_ones_own_names_it_but_does_not_run_it(tmp_path: Path) -> None:
    layer = {"name": "custom", "target": "torch.nn:BatchNorm2d"}
    model = Classifier(layer, schedule="constant")
    loop = trainer()
    loop.fit(model, datamodule=small())
    loop.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ConfigError, match=r"names torch.nn:BatchNorm2d, whose code would run: allow it by targets="):
        Classifier.load_from_checkpoint(tmp_path / "own.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "own.ckpt", targets=["torch.nn:BatchNorm2d"])
    assert again.hparams == model.hparams
    assert Classifier(layer).net is not None, "asked for in code, it is the caller's own"
