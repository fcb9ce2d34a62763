"""Corrupted test images: each does what its name says, and every run sees the same ones."""

from pathlib import Path

import pytest
import torch
from conftest import draw_nothing

from normlab import train
from normlab.data.augment import contrast, corrupted, noised, rotated, shifted
from normlab.data.several import CorruptedImages
from normlab.probe import main as probe
from normlab.record import Record, RecordError, Robustness, read_robustness, write_robustness
from normlab.settings import Settings
from normlab.settings.corruptions import CORRUPTIONS, STRENGTHS
from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.build import initial_model, load_images
from normlab.training.checkpoint import evaluate_checkpoints

SHORT = ["data=digits", "train_size=120", "batch_size=30", "epochs=2", "threads=1"]
EVALUATED = "evaluate=[clean,shifted,noised]"


def random() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def spot(x: int, y: int, height: int = 28, width: int = 28, channels: int = 1) -> torch.Tensor:
    """40 images, black but for one white pixel."""
    images = torch.zeros(40, channels, height, width)
    images[:, :, y, x] = 1
    return images


def centre(images: torch.Tensor) -> torch.Tensor:
    """Where the light of the first channel is, x and y: (N, 2)."""
    light = images[:, 0]
    whole = light.sum((1, 2))
    x = (light.sum(1) * torch.arange(light.shape[2])).sum(1) / whole
    return torch.stack([x, (light.sum(2) * torch.arange(light.shape[1])).sum(1) / whole], 1)


class TestEachCorruption:
    @pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (56, 60, 3)])
    def test_a_shift_moves_by_pixels_of_28_in_all_directions(self, height: int, width: int, channels: int) -> None:
        images = spot(width // 2, height // 2, height, width, channels)
        move = centre(shifted(images, 4, random())) - torch.tensor([width // 2, height // 2])
        assert move.norm(dim=1).numpy() == pytest.approx(4 * height / 28, abs=1e-3)
        assert (move.sign().unique(dim=0).shape[0]) == 4  # into every quadrant

    def test_a_rotation_turns_about_the_centre_either_way(self) -> None:
        from_centre = centre(rotated(spot(23, 14), 30, random())) - 13.5
        angles = torch.rad2deg(
            torch.atan2(from_centre[:, 1], from_centre[:, 0]) - torch.atan2(*torch.tensor([0.5, 9.5]))
        )
        assert angles.abs().numpy() == pytest.approx(30, abs=0.6)
        assert set(angles.sign().tolist()) == {-1, 1}

    def test_nothing_is_done_by_an_amount_of_nothing(self) -> None:
        images = torch.rand(4, 3, 20, 24)
        for same in (rotated(images, 0, random()), shifted(images, 0, random()), noised(images, 0, random())):
            assert same.numpy() == pytest.approx(images.numpy(), abs=1e-5)
        assert contrast(images, 1).numpy() == pytest.approx(images.numpy(), abs=1e-6)

    def test_noise_has_its_deviation_and_stays_in_range(self) -> None:
        noise = noised(torch.full((20, 1, 28, 28), 0.5), 0.1, random()) - 0.5
        assert noise.std().item() == pytest.approx(0.1, rel=0.02)
        assert noise.mean().item() == pytest.approx(0, abs=0.002)
        strong = noised(torch.full((20, 1, 28, 28), 0.9), 0.5, random())
        assert (strong.min(), strong.max()) == (0, 1)

    def test_contrast_shrinks_around_the_mean_of_each_channel(self) -> None:
        images = torch.rand(4, 3, 20, 24)
        less = contrast(images, 0.2)
        assert less.mean((2, 3)).numpy() == pytest.approx(images.mean((2, 3)).numpy(), abs=1e-6)
        assert less.std((2, 3)).numpy() == pytest.approx(0.2 * images.std((2, 3)).numpy(), rel=1e-4)

    def test_every_strength_is_stronger(self) -> None:
        for of in CORRUPTIONS.values():
            far = [abs(amount - of.clean) for amount in of.amounts]
            assert far == sorted(set(far))
            assert far[0] > 0


def test_an_image_has_the_same_corruption_wherever_it_is_asked_for() -> None:
    images = torch.randint(256, (1500, 1, 14, 14), dtype=torch.uint8, generator=random())
    for kind in CORRUPTIONS:
        torch.manual_seed(0)
        once = corrupted(images, kind, 3)
        torch.manual_seed(1)
        assert torch.equal(corrupted(images, kind, 3), once), "no other stream is drawn from"
        assert torch.equal(corrupted(images[:1000], kind, 3), once[:1000]), "nor does it depend on later images"
        assert not torch.equal(once, images)
    weak, strong = (corrupted(images[:1], "noised", at).int() - images[:1].int() for at in (1, 5))
    inside = (strong.abs() < 100) & (images[:1] > 110) & (images[:1] < 145)
    assert (weak.sign() == strong.sign())[inside & (weak != 0)].all(), "one pattern that grows"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs evaluated as they ended, which tests read and never change: bn-seed_0 on its own, two in an array."""
    folder = tmp_path_factory.mktemp("evaluated")
    settings = [load(*SHORT, "norm=bn", EVALUATED, f"seed={seed}") for seed in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        assert run(settings[0], folder / "alone").status == "completed"
        run_array(settings, [folder / "array0", folder / "array1"])
    return folder


@pytest.mark.usefixtures("undrawn")
class TestRuns:
    def test_what_is_kept(self, evaluated: Path) -> None:
        rows = read_robustness(evaluated / "alone")
        ways = [("clean", 0)] + [(kind, strength) for kind in ("shifted", "noised") for strength in STRENGTHS]
        assert [row[:3] for row in rows] == [(*way, mode) for way in ways for mode in ("eval", "adapted")]
        metrics = Record.load(evaluated / "alone").metrics
        clean = rows[0]
        scored = (metrics["test_acc"], metrics["test_ce"], metrics["test_prob_true"], metrics["test_brier"])
        assert clean[3:7] == scored
        assert clean.calibration_error == metrics["test_calibration_error"]

    def test_adapted_statistics_are_those_of_the_images(self, evaluated: Path) -> None:
        """Every layer's running averages by hand, and then eval mode."""
        settings = load(*SHORT, "norm=bn", "kernels=torch")
        [data] = load_images([settings])
        images = CorruptedImages([data], ["noised"], ["eval"])
        state = torch.load(evaluated / "alone/last.ckpt", weights_only=True)["state_dict"]
        model = initial_model(settings, data)
        model.load_state_dict(state)
        model.net.train()
        for layer in model.net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 1.0
        pixels = corrupted(data.test.images, "noised", 5).float() / 255
        assert torch.equal(images.some(5, torch.arange(500), torch.device("cpu")), pixels)
        with torch.no_grad():
            model(pixels)  # all 500 test images of digits: running averages are now theirs, with the unbiased variance
            model.net.eval()
            right = (model(pixels).argmax(1) == data.test.labels).double().mean().item()
        rows = {row[:3]: row for row in read_robustness(evaluated / "alone")}
        assert rows["noised", 5, "adapted"].acc == pytest.approx(right, abs=0.011)
        assert rows["noised", 5, "adapted"].acc != rows["noised", 5, "eval"].acc

    def test_an_array_has_the_bits_of_single_runs(self, evaluated: Path) -> None:
        alone, array = (read_robustness(evaluated / name) for name in ("alone", "array0"))
        assert alone == array
        assert read_robustness(evaluated / "array1") != array

    def test_a_checkpoint_has_them_too_and_other_kinds_stay(self, evaluated: Path, tmp_path: Path) -> None:
        for name in ("result.json", "last.ckpt"):
            (tmp_path / name).write_bytes((evaluated / "array1" / name).read_bytes())
        for kinds in (["noised"], ["shifted"], ["noised"]):
            [(folder, rows)] = evaluate_checkpoints([tmp_path], kinds)  # type: ignore[arg-type]
            assert folder == tmp_path
            assert not isinstance(rows, Exception)
        assert sorted(read_robustness(tmp_path)) == sorted(read_robustness(evaluated / "array1"))

    def test_a_norm_without_running_averages_has_one_mode(self, tmp_path: Path) -> None:
        run(load(*SHORT, "norm=ln", "evaluate=[shifted]"), tmp_path)
        assert {row.mode for row in read_robustness(tmp_path)} == {"eval"}

    def test_a_finished_run_is_evaluated_without_training(
        self, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = [*SHORT, "norm=bn", f"log_dir={tmp_path}"]
        folder = tmp_path / "runs" / load(*words).slug()
        folder.mkdir(parents=True)
        for name in ("result.json", "last.ckpt"):
            (folder / name).write_bytes((evaluated / "alone" / name).read_bytes())
        before = (folder / "last.ckpt").stat().st_mtime_ns
        assert train.main([*words, EVALUATED]) == 0
        assert "evaluated on shifted, noised images" in capsys.readouterr().err
        assert read_robustness(folder) == read_robustness(evaluated / "alone")
        assert (folder / "last.ckpt").stat().st_mtime_ns == before
        assert train.main([*words, EVALUATED]) == 0
        assert "evaluated" not in capsys.readouterr().err

    def test_a_folder_of_runs_is_evaluated_and_what_cannot_be_is_named(
        self, evaluated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for place in ("whole", "half"):
            (tmp_path / place).mkdir()
            (tmp_path / place / "result.json").write_bytes((evaluated / "alone" / "result.json").read_bytes())
        (tmp_path / "whole/last.ckpt").write_bytes((evaluated / "alone/last.ckpt").read_bytes())
        assert probe([str(tmp_path), "shifted"]) == 2
        out, error = capsys.readouterr()
        assert "half holds no last.ckpt" in error
        assert "robustness.csv of 1 runs" in out
        assert {row.kind for row in read_robustness(tmp_path / "whole")} == {"clean", "shifted"}
        assert probe([str(tmp_path / "whole"), "shifted"]) == 0
        assert "strength 5" in capsys.readouterr().out


class TestSettings:
    def test_a_run_without_a_checkpoint_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["data=digits", "norm=ln", f"log_dir={tmp_path}"]
        settings: Settings = load(*words)
        folder = tmp_path / "runs" / settings.slug()
        folder.mkdir(parents=True)
        Record.of(settings, "completed").save(folder)
        assert train.main([*words, "evaluate=[noised]"]) == 0
        assert "holds no last.ckpt" in capsys.readouterr().err


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [Robustness("noised", 3, "eval", 1 / 3, 0.1, 0.2, 0.3, 0.4)]
    assert read_robustness(tmp_path) == []
    write_robustness(tmp_path, rows)
    assert read_robustness(tmp_path) == rows
    (tmp_path / "robustness.csv").write_text(",".join(Robustness._fields) + "\nnoised,3,eval,x,0,0,0,0\n")
    with pytest.raises(RecordError, match=r"robustness\.csv is damaged"):
        read_robustness(tmp_path)
