"""Images moved and corrupted, against pixels worked out one by one; and runs scored on corrupted test images, which are
the same ones for all."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_nothing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from normlab import train
from normlab.data.augment import contrast, corrupted, noised, rotate_and_shift, rotated, shifted
from normlab.data.several import CorruptedImages
from normlab.probe import main as probe
from normlab.record import Record, RecordError, Robustness, read_robustness, write_robustness
from normlab.settings.corruptions import CORRUPTIONS, STRENGTHS
from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.build import initial_model, load_images
from normlab.training.checkpoint import evaluate_checkpoints

SHORT = ["data=digits", "train_size=120", "batch_size=30", "epochs=2", "threads=1"]
EVALUATED = "evaluate=[shifted,noised]"
ROW = st.tuples(*[st.floats(-1, 1)] * 3)


def random(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Rotation and shift


def by_hand(image: np.ndarray, angle: float, right: float, down: float) -> np.ndarray:
    """Output pixel p shows the input at R⁻¹(p - t), p and t in pixels from the centre, y pointing down: content turns
    counterclockwise by `angle` (radians), then moves. Between pixels: the four neighbours by closeness, 0 outside."""
    height, width = image.shape
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2 - right, row - (height - 1) / 2 - down
            from_x = math.cos(angle) * x - math.sin(angle) * y + (width - 1) / 2
            from_y = math.sin(angle) * x + math.cos(angle) * y + (height - 1) / 2
            for i in (math.floor(from_y), math.floor(from_y) + 1):
                for j in (math.floor(from_x), math.floor(from_x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[row, column] += (1 - abs(from_y - i)) * (1 - abs(from_x - j)) * image[i, j]
    return out


@given(
    height=st.integers(1, 8), width=st.integers(1, 8), rows=st.lists(ROW, min_size=1, max_size=3),
    rotation=st.floats(0, 180), shift=st.floats(0, 4), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
@example(28, 28, [(0.0, 0.0, 0.0), (0.2, 0.5, -1.0), (-1.0, 0.0, 0.0)], 15.0, 3.0, 0)
@example(9, 28, [(0.7, 0.4, -0.8), (0.7, -0.8, 0.0)], 0.0, 5.0, 0)  # whole pixels
@settings(deadline=None, max_examples=60)
def test_every_pixel_comes_from_where_the_formula_says(height, width: int, rows, rotation, shift, seed: int) -> None:
    """By the draws of its own image; and nothing is written to what is given."""
    x = torch.rand(len(rows), 1, height, width, dtype=torch.float64, generator=random(seed))
    before = x.clone()
    moved = rotate_and_shift(x, torch.tensor(rows, dtype=torch.float64), rotation=rotation, shift=shift)
    assert torch.equal(x, before)
    for image, (angle, right, down), found in zip(x[:, 0].numpy(), rows, moved[:, 0].numpy(), strict=True):
        expected = by_hand(image, math.radians(angle * rotation), right * shift, down * shift)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_a_quarter_turn_is_rot90() -> None:
    """A draw of +1 with 90 degrees turns counterclockwise, as `torch.rot90(k=1)` over (rows, columns) does; -1 back."""
    x = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    rows = torch.tensor([(1, 0, 0), (-1, 0, 0)], dtype=torch.float64)
    quarter, half = (rotate_and_shift(x, rows, rotation=angle, shift=2) for angle in (90, 180))
    for index, times in enumerate((1, -1)):
        torch.testing.assert_close(quarter[index, 0], torch.rot90(x[index, 0], times, (0, 1)), rtol=0, atol=1e-10)
    torch.testing.assert_close(half, x.flip(2, 3), rtol=0, atol=1e-10)


# Corruptions


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


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (56, 60, 3)])
def test_a_shift_moves_by_pixels_of_28_in_all_directions(height: int, width: int, channels: int) -> None:
    images = spot(width // 2, height // 2, height, width, channels)
    move = centre(shifted(images, 4, random())) - torch.tensor([width // 2, height // 2])
    assert move.norm(dim=1).numpy() == pytest.approx(4 * height / 28, abs=1e-3)
    assert (move.sign().unique(dim=0).shape[0]) == 4  # into every quadrant


def test_a_rotation_turns_about_the_centre_either_way() -> None:
    from_centre = centre(rotated(spot(23, 14), 30, random())) - 13.5
    angles = torch.rad2deg(torch.atan2(from_centre[:, 1], from_centre[:, 0]) - torch.atan2(*torch.tensor([0.5, 9.5])))
    assert angles.abs().numpy() == pytest.approx(30, abs=0.6)
    assert set(angles.sign().tolist()) == {-1, 1}


def test_noise_has_its_deviation_and_stays_in_range() -> None:
    noise = noised(torch.full((20, 1, 28, 28), 0.5), 0.1, random()) - 0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)
    strong = noised(torch.full((20, 1, 28, 28), 0.9), 0.5, random())
    assert (strong.min(), strong.max()) == (0, 1)


def test_contrast_shrinks_around_the_mean_of_each_channel() -> None:
    images = torch.rand(4, 3, 20, 24)
    mean = images.sum((2, 3), keepdim=True) / (20 * 24)
    for factor in (0.2, 1.0):
        torch.testing.assert_close(contrast(images, factor, None), mean + factor * (images - mean), rtol=0, atol=1e-6)


def test_an_image_has_the_same_corruption_wherever_it_is_asked_for() -> None:
    images = torch.randint(256, (1500, 1, 14, 14), dtype=torch.uint8, generator=random())
    for kind, of in CORRUPTIONS.items():
        far = [abs(amount - of.clean) for amount in of.amounts]
        assert far[0] > 0
        assert far == sorted(set(far)), "every strength is stronger"
        torch.manual_seed(0)
        once = corrupted(images, kind, 3)
        torch.manual_seed(1)
        assert torch.equal(corrupted(images, kind, 3), once), "no other stream is drawn from"
        assert torch.equal(corrupted(images[:1000], kind, 3), once[:1000]), "nor does it depend on later images"
        assert not torch.equal(once, images)
    weak, strong = (corrupted(images[:1], "noised", at).int() - images[:1].int() for at in (1, 5))
    inside = (strong.abs() < 100) & (images[:1] > 110) & (images[:1] < 145)
    assert (weak.sign() == strong.sign())[inside & (weak != 0)].all(), "one pattern that grows"


# Runs


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


def finished(source: Path, folder: Path) -> Path:
    """A copy of a run without its scores on corrupted images."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("result.json", "last.ckpt"):
        shutil.copy(source / name, folder)
    return folder


def test_what_is_kept(evaluated: Path) -> None:
    """Of an array, to the bits of the single run."""
    rows = read_robustness(evaluated / "alone")
    ways = [("clean", 0)] + [(kind, strength) for kind in ("shifted", "noised") for strength in STRENGTHS]
    assert [row[:3] for row in rows] == [(*way, mode) for way in ways for mode in ("eval", "adapted")]
    metrics = Record.load(evaluated / "alone").metrics
    scored = (metrics["test_acc"], metrics["test_ce"], metrics["test_prob_true"], metrics["test_brier"])
    assert rows[0][3:7] == scored
    assert rows[0].calibration_error == metrics["test_calibration_error"]
    assert read_robustness(evaluated / "array0") == rows != read_robustness(evaluated / "array1")


def test_adapted_statistics_are_those_of_the_images(evaluated: Path) -> None:
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


def test_a_checkpoint_has_them_too_and_other_kinds_stay(evaluated: Path, tmp_path: Path) -> None:
    finished(evaluated / "array1", tmp_path)
    for kinds in (["noised"], ["shifted"], ["noised"]):
        [(folder, rows)] = evaluate_checkpoints([tmp_path], kinds)  # type: ignore[arg-type]
        assert folder == tmp_path
        assert not isinstance(rows, Exception)
    assert sorted(read_robustness(tmp_path)) == sorted(read_robustness(evaluated / "array1"))


def test_a_norm_without_running_averages_has_one_mode(tmp_path: Path, undrawn: None) -> None:
    run(load(*SHORT, "norm=ln", "evaluate=[shifted]"), tmp_path)
    assert {row.mode for row in read_robustness(tmp_path)} == {"eval"}


def test_a_finished_run_is_evaluated_without_training(evaluated: Path, tmp_path: Path, capsys) -> None:
    words = [*SHORT, "norm=bn", f"log_dir={tmp_path}"]
    folder = finished(evaluated / "alone", tmp_path / "runs" / load(*words).slug())
    before = (folder / "last.ckpt").stat().st_mtime_ns
    assert train.main([*words, EVALUATED]) == 0
    assert "evaluated on shifted, noised images" in capsys.readouterr().err
    assert read_robustness(folder) == read_robustness(evaluated / "alone")
    assert (folder / "last.ckpt").stat().st_mtime_ns == before
    assert train.main([*words, EVALUATED]) == 0
    assert "evaluated" not in capsys.readouterr().err
    (folder / "last.ckpt").unlink()
    assert train.main([*words, "evaluate=[contrast]"]) == 0
    assert "holds no last.ckpt" in capsys.readouterr().err


def test_a_folder_of_runs_is_evaluated_and_what_cannot_be_is_named(evaluated: Path, tmp_path: Path, capsys) -> None:
    for place in ("whole", "half"):
        finished(evaluated / "alone", tmp_path / place)
    (tmp_path / "half/last.ckpt").unlink()
    assert probe([str(tmp_path), "shifted"]) == 2
    out, error = capsys.readouterr()
    assert "half holds no last.ckpt" in error
    assert "robustness.csv of 1 runs" in out
    assert {row.kind for row in read_robustness(tmp_path / "whole")} == {"clean", "shifted"}
    assert probe([str(tmp_path / "whole"), "shifted"]) == 0
    assert "strength 5" in capsys.readouterr().out


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [Robustness("noised", 3, "eval", 1 / 3, 0.1, 0.2, 0.3, 0.4)]
    assert read_robustness(tmp_path) == []
    write_robustness(tmp_path, rows)
    assert read_robustness(tmp_path) == rows
    (tmp_path / "robustness.csv").write_text(",".join(Robustness._fields) + "\nnoised,3,eval,x,0,0,0,0\n")
    with pytest.raises(RecordError, match=r"robustness\.csv is damaged"):
        read_robustness(tmp_path)
