"""Arrays against single runs over seeds, in float32: `python -m benchmarks.equivalence --out docs/equivalence.md`.

Every seed is trained by itself and in an array, from the same weights, on the same images in the same order. In float64
the two end with the same weights to 1e-8 or better (tests/test_several.py). In float32 their sums round differently, a
training amplifies that, and single accuracies part by an image or two either way; here it is shown that they do not
part in one direction. TOST is by the paired t test: its margin is the smallest that these seeds can exclude at 5 %.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
from joblib import Parallel, delayed  # type: ignore[import-untyped, unused-ignore]  # scikit-learn's

from normlab.analysis.stats import difference_of, paired, tost
from normlab.record import Record
from normlab.settings.plan import load
from normlab.training import run, run_array
from normlab.training.device import describe_device, versions

NORMS = ("bn", "ln", "gn")


def settings(norm: str, seed: int, epochs: int, batch: int) -> list[str]:
    return ["data=digits", f"norm={norm}", f"seed={seed}", f"epochs={epochs}", f"batch_size={batch}", "threads=1"]


def one(words: Sequence[str], folder: Path) -> Record:
    return run(load(*words), folder)


def together(words: Sequence[Sequence[str]], folder: Path) -> list[Record]:
    return run_array([load(*each) for each in words], [folder / str(index) for index in range(len(words))])


def smallest_margin(differences: Sequence[float]) -> float:
    """The smallest margin within which TOST at 5 % finds these differences: the far end of their 90 % interval."""
    found = paired(differences, confidence=0.9)
    return max(abs(found.low), abs(found.high))


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.equivalence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=32, help="images a step: with 32, two networks share a pass")
    parser.add_argument("--norms", nargs="+", choices=NORMS, default=NORMS)
    parser.add_argument("--out", type=Path, help="write the table there")
    args = parser.parse_args(given)
    headings = ["norm", "runs", "array, %", "single, %", "difference, pp", "95 % interval", "margin, pp", "the same"]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    jobs = os.cpu_count() or 1
    for norm in args.norms:
        words = [settings(norm, seed, args.epochs, args.batch) for seed in range(args.first, args.first + args.seeds)]
        parts = [words[i::jobs] for i in range(jobs)]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            alone = Parallel(jobs)(delayed(one)(each, folder / f"alone-{i}") for i, each in enumerate(words))
            arrays = Parallel(jobs)(
                delayed(together)(part, folder / f"array-{i}") for i, part in enumerate(parts) if part
            )
        records = {"array": [record for part in arrays for record in part], "single": alone}
        acc = {kind: {r.seed: 100 * r.metrics["test_acc"] for r in found} for kind, found in records.items()}
        differences = [acc["array"][seed] - acc["single"][seed] for seed in acc["single"]]
        found, margin = difference_of(acc["array"], acc["single"]), smallest_margin(differences)
        assert margin == 0 or tost(found, margin * (1 + 1e-9)) <= 0.05  # 0: every pair agrees to the image
        spread = {kind: f"{mean(of.values()):.2f} ± {stdev(of.values()):.2f}" for kind, of in acc.items()}
        equal = sum(difference == 0 for difference in differences)
        lines.append(
            f"| `{norm}` | {len(differences)} | {spread['array']} | {spread['single']} | {found.mean:+.3f} | "
            f"{found.low:+.3f} to {found.high:+.3f} | {margin:.3f} | {equal} |".replace("-", "−")
        )
        print(lines[-1], flush=True)
    device = describe_device(torch.device("cpu"))["name"]
    made = ", ".join(f"{name} {number}" for name, number in versions().items())
    words_given = f"--seeds {args.seeds} --first {args.first} --epochs {args.epochs} --batch {args.batch}"
    lines += [
        "",
        f"`python -m benchmarks.equivalence {words_given}`; digits, 500 test images (one is 0.2 pp); {device}; {made}.",
    ]
    if args.out:
        args.out.write_text("\n".join(["# Arrays and single runs over seeds", "", *lines, ""]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
