"""A trained network, used: its probabilities, and as a file that other programs run."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from normlab.errors import ConfigError, NormlabError, first_line
from normlab.files import write_atomically
from normlab.training.classifier import Classifier

TOLERANCE = 1e-4  # between log-probabilities of a file and of its checkpoint: float32 in another order


def trained(place: str | PathLike[str], *, targets: Sequence[str] = ()) -> Classifier:
    """Return the network of a run's folder (after its last epoch) or of a checkpoint, in eval mode, on the CPU.

    targets: "package.module:Class" of code that the run had of its own, which is imported and run. Raise
    `NormlabError`, in one line, where there is no checkpoint, it cannot be read, or it names other code.
    """
    path = Path(place)
    file = path / "last.ckpt" if path.is_dir() else path
    if not file.is_file():
        raise NormlabError(f"{file} is not there: name a run's folder, or a checkpoint such as best.ckpt")
    try:
        return Classifier.load_from_checkpoint(file, "cpu", targets=targets, weights_only=True).eval()
    except ConfigError:
        raise
    except Exception as error:  # a damaged file, or code that is not there any more, may raise anything
        raise NormlabError(
            f"{file} cannot be loaded ({first_line(error)}): train its run again with force=true"
        ) from None


def predict(
    place: str | PathLike[str],
    images: "torch.Tensor | np.ndarray[Any, Any] | str | PathLike[str]",
    *,
    targets: Sequence[str] = (),
) -> torch.Tensor:
    """Return the probabilities of the classes, float32 (N, classes), by a trained network.

    Args:
        place: a run's folder (its last epoch counts) or a checkpoint.
        images: uint8, or floats in [0, 1], (N, H, W) or (N, C, H, W), or the path of an image file: see
            `Classifier.predict`.
        targets: see `trained`.

    Raise `NormlabError` where there is no network, `ValueError` where images do not fit it.
    """
    return trained(place, targets=targets).predict(images)


def export(place: str | PathLike[str], out: str | PathLike[str] | None = None, *, targets: Sequence[str] = ()) -> Path:
    """Write a trained network as an ONNX file, run it, and return its path.

    The input `images` is float32 (N, C, H, W) in [0, 1], N any number; the output `log_probs` is (N, classes). Pixels
    are normalised inside. The file is written only if its log-probabilities are within 1e-4 of the checkpoint's.

    Args:
        place: a run's folder or a checkpoint. out: the file; beside the checkpoint by default, as last.onnx.
        targets: see `trained`.

    Raise `NormlabError` where a package is missing, the network cannot be exported, or the file computes something
    else.
    """
    try:
        import onnxruntime  # type: ignore[import-untyped]  # it has no types
        import onnxscript  # noqa: F401  # torch.onnx.export writes by it
    except ImportError as error:
        raise NormlabError(f"{error.name} is missing: pip install 'normlab[export]'") from None
    model = trained(place, targets=targets).float()
    path = Path(place)
    out = Path(out) if out is not None else (path / "last.ckpt" if path.is_dir() else path).with_suffix(".onnx")
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((5, *model.image), generator=generator)
    batch = {0: torch.export.Dim("batch")}
    try:
        program = torch.onnx.export(
            model, (images[:2],), dynamo=True, verbose=False, input_names=["images"], output_names=["log_probs"],
            dynamic_shapes=(batch,),
        )  # fmt: skip
    except Exception as error:  # a user's own layer may do what no graph can
        raise NormlabError(f"{place}: cannot be exported ({first_line(error)})") from None
    assert program is not None
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        off = float((torch.from_numpy(found) - model(images)).abs().max())
    if not off <= TOLERANCE:
        raise NormlabError(f"{place}: the exported network computes something else (off by {off:.2g}): nothing written")
    try:
        write_atomically(out, content)
    except OSError as error:
        raise NormlabError(f"{out} cannot be written ({error.strerror}): choose another --out") from None
    return out
