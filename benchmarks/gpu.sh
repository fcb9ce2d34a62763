#!/usr/bin/env bash
# What only a GPU can show, in ten minutes at most: benchmarks/gpu.sh FOLDER, in which study.csv, study.md and figures are then.
# Tests that train on whatever device torch finds; single runs, CUDA graphs and arrays side by side; one run on two GPUs.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
PATH=$PWD/.venv/bin:$PATH
out=${1:?name a folder for the results}
gpus=$(python -c "import torch; print(torch.cuda.device_count())")
[ "$gpus" -gt 0 ] || { echo "torch finds no GPU here" >&2; exit 2; }
failed=0
part() { # seconds, arguments of `python -m`; what is not done in time is told to stop, and what it has written stays
  timeout --signal=INT --kill-after=10 "$1" python -m "${@:2}" || { echo "ended with $?: ${*:2}"; failed=1; }
}
part 180 pytest -q tests/test_array.py tests/test_resume.py tests/test_several.py tests/test_training.py
part 330 benchmarks.study --device gpu --data "${DATA:-digits}" --reps 2 --out "$out"
[ "$gpus" -lt 2 ] || part 50 normlab.train devices=2 accelerator=gpu data=digits epochs=2 "log_dir=$out/two-gpus"
exit $failed
