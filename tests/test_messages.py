"""Slips of the hand: one line that says what was meant, before anything is written."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from normlab.errors import ConfigError
from normlab.settings import GROUPS, choices
from normlab.settings.plan import load
from normlab.train import main

VALUES = {  # what is answered to "name=value": "name=value: …"
    "must be greater than or equal to 0": "l1=-1 seed=-1 val_size=-1",
    "must be greater than or equal to 1": "batch_size=0 epochs=0 threads=0 devices=0 train_size=0 lr_per=0",
    "must be greater than 0": "lr=0",
    "must be less than 1": "dropout=1 optimizer.momentum=1",
    "must be less than or equal to 180": "augment.rotation=200",
    "must be above 0": "norm.eps=0",
    "must be between 0 and 1": "norm.momentum=2",
    "must be a finite number": "l1=nan",
    "must be a valid number": "lr=fast",
    "must be a valid integer": "epochs= seed=1.5",
    "must be a valid boolean": "weight_standardization=1",
    "must have at least 1 character": "log_dir=",
    "must be 'post' or 'pre'": "placement=middle",
    "must be 'weights', 'conv', 'norm' or 'all'": "penalty.scope=biases",
    "must be 'subgradient' or 'proximal'": "penalty.method=l0",
    "must be 'auto', 'cpu' or 'gpu'": "accelerator=tpu",
    "must be '32-true', 'tf32', '64-true', '16-mixed' or 'bf16-mixed'": "precision=16",
    "did you mean ln?": "norm=lnn norm=LN",
    "did you mean bn?": "norm=batch",
    "did you mean adamw?": "optimizer=adam",
    "did you mean mnist?": "data=MNIST",
    "did you mean array?": "hydra/launcher=aray",
    "did you mean MULTIRUN?": "hydra.mode=MULTIRUM",
    "did you mean replication?": "study=replicaton study=../replication",
    "choose one of true, false": "norm.affine=1",
    "choose one of bcn, bin, bn, ": "norm norm=sparse norm=[]",
    "choose one of auto, digits, ": "data=[]",
    "choose one of array, array_local, array_slurm, basic, ": "hydra/launcher=nowhere",
    "choose one of batch_size, ": "study=",
    "write a number": "norm.eps=null",
    "write a list, as in probes=[layers]": "probes=layers",
    "write a list, as in evaluate=[shifted]": "evaluate=shifted",
    "write true or false, or set augment.rotation and augment.shift": "augment=3",
    "write norm=ln, which brings its options": "norm.name=ln",
    "not understood; write name=value": "epochs",
    "several values need -m (python -m normlab.train -m …)": "l1=0,1e-3 norm=bn,ln",
    "one study at a time": "study=replication,replication_quick",
    "a folder's name, without / or \\, and no dot at its end": "name=.. name=a/b",
    "runs are written to a folder of this machine": "log_dir=gs://bucket/logs",
}
# What is typed, and how the answer begins: … is the last word that was typed.
LINES = r"""
momentum=1 → momentum is no setting here; did you mean norm.momentum or optimizer.momentum?
optimizer.betas=1 → optimizer.betas is no setting here; choose one of optimizer.name, optimizer.momentum,
augment=false augment.shift=1 → augment=false leaves no augment.shift to set: leave one of the two out
epoch=3 → epoch is no setting here; did you mean epochs?
norm.epsilon=1 → norm.epsilon is no setting here; did you mean norm.eps?
norm.num_groups=2 → norm.num_groups is no setting here; choose one of norm.name, norm.eps, norm.momentum, norm.affine
foo=1 → foo is no setting here; choose one of seed, l1, penalty,
seed=${nothing} → Interpolation key 'nothing' not found
net.channels=0 → …: must be greater than or equal to 1
net=vgg → …: choose one of custom, resnet10, small
net=custom → … needs net.target=package.module:factory
net.target=a:b → net.target goes with net=custom; net=small has none
net=resnet10 dropout=0.1 → … goes with net=small, not with net=resnet10
net=resnet10 placement=pre → … goes with net=small, not with net=resnet10
net=resnet10 weight_standardization=true → … goes with net=small, not with net=resnet10
norm=gn norm.num_groups=4 → … does not divide the channels (10, 12, 20): choose one of 1, 2
norm=gn norm.channels_per_group=4 → … does not divide the channels (10, 12, 20): choose one of 1, 2
l1=1e-3 penalty.scope=norm norm=none → penalty.scope=norm: norm=none has no scales here to be penalised
l1=1e-3 penalty.scope=norm norm=ln norm.affine=false → penalty.scope=norm: norm=ln has no scales here to be penalised
norm=custom norm.target=a:B norm.options={eps:\ inf} → norm.eps=inf: only finite numbers, words, true, false, null,
norm.options=5 → norm.options goes with norm=custom: add norm=custom, or leave norm.options out
precision=16-mixed → … needs a GPU: use precision=bf16-mixed on CPU
devices=200 → …: no more than the 128 images of a batch, which the devices share
sync_batchnorm=false → … goes with devices=2 or more, not with one device
devices=2 sync_batchnorm=false probes=[shift] → devices=2: probes=[shift] needs a network on one device
-m devices=1,2 → devices=2: the runs of a sweep share the machine, each on one device; leave devices out,
study=groups_quick devices=2 → …: the runs of a sweep share the machine, each on one device
devices=2 norm=custom norm.target=a:B → devices=2: norm=custom cannot be synchronised; with sync_batchnorm=false
-m norm=bn,LN → norm=LN: did you mean ln?
norm = ln → norm = ln: write norm=ln, without blanks
norm= ln → norm= ln: write norm=ln, without blanks
-m norm=bn, ln → norm=bn, ln: write norm=bn,ln, without blanks
norm.options={eps: 1} → norm.options={eps:: the shell split this at a blank: quote it, as in 'norm.options={eps: 1}'
probes=[layers, shift] → probes=[layers,: the shell split this at a blank: quote it, as in 'probes=[layers, shift]'
norm=custom → … needs norm.target=package.module:Class
-m norm=bn,custom → norm=custom needs norm.target=package.module:Class
-m norm=glob(*) → norm=custom needs norm.target=package.module:Class
study=custom_layer → norm=custom needs norm.target=package.module:Class
norm=custom norm.target=mine.py:RMS → …: did you mean norm.target=mine:RMS?
norm=custom norm.target=my/own.py:RMS → …: did you mean norm.target=my.own:RMS?
norm=custom norm.target=mine.RMS → …: did you mean norm.target=mine:RMS?
norm=custom norm.target=RMS → …: write norm.target=package.module:Class
norm=custom norm.target=/x/mine.py:RMS → …: write norm.target=mine:RMS, and start the command in /x
norm=custom norm.target=nowhere:Layer → …: there is no module nowhere here; write
norm=custom norm.target=typed_layers:Layr → …: typed_layers has no Layr; its classes: Layer
norm=custom norm.target=broken:Layer → …: broken.py cannot be read as Python
norm.target=mine:RMS → norm.target goes with norm=custom: add norm=custom, or leave norm.target out
-m norm=bn,ln norm.target=mine:RMS → … goes with norm=custom: add custom to the norms,
-m norm=bn,ln norm.options={start:\ 2} → … goes with norm=custom: add custom to the norms,
study=replication norm.target=mine:RMS → … goes with norm=custom: add custom to the norms,
-m norm=bn,custom norm.target=a:B norm.eps=1 → norm.eps is no setting here; choose one of
-m norm=bn,custom norm.target=a:B,a:B → two runs of this sweep would share lightning_logs/
-m seed=0,0 → two runs of this sweep would share lightning_logs/
-m logger=csv,tensorboard → two runs of this sweep would share lightning_logs/
logger=[tensorbord] → logger.0=tensorbord: must be 'tensorboard', 'csv', 'wandb' or 'mlflow'
probes=[layer] → probes.0=layer: must be 'layers', 'landscape', 'shift' or 'statistics'
evaluate=[shift] → evaluate.0=shift: must be 'shifted',
-m norm=bn,ln ignore=[NL0009] → ignore NL0009: no such rule; did you mean NL009?
-m norm=bn,ln ignore=NL009 → …: write a list, as in ignore=[NL009]
-m l1=0,-1 → l1=-1: must be greater than or equal to 0
-m augment=0,1 → augment=0: write true or false
-m seed=choice(0,1),2 → …: cannot be swept
-m seed=range(0,0) → …: holds no value, so there is nothing to run
data=digits val_size=5000 → … leaves none of 1297 training images of digits
-m data=digits val_size=10,5000 → val_size=5000 leaves none of 1297 training images of digits
study=replication_quick val_size=99999 → … leaves none of 1297 training images of digits
data=digits train_size=1290 → …: only 1168 training images of digits are not held out
-m data=auto,digits → data=auto goes with no other data set in one sweep: name the sets
data=mnist data.download=false data.root=. → MNIST is not in
data=folder → … needs data.root=…, the folder of your images
data=digits data.root=. → data.root goes with data=auto, fashion_mnist, folder, kmnist, mnist, not with data=digits
hydra/launcher=array → … is for several runs: add -m and values, as in -m seed
-m hydra/launcher=arry seed=0,1 → hydra/launcher=arry: did you mean array?
-m hydra/sweeper=optuna seed=0 → hydra/sweeper=optuna: values are crossed as by Hydra's basic sweeper, and by no other
-m hydra.sweeper.params=3 seed=0,1 → Hydra cannot do this (Error merging override hydra.sweeper.params=3)
norm=lnn --cfg job → norm=lnn: did you mean ln?
-m norm=bn,ln --cfg job → --cfg shows the configuration of one run: leave -m out
--cfg job --package nrm → --package nrm: there is no such part; choose one of seed, l1,
--config-name=other → --config-name: settings stand in conf/ and on the command line alone
--config-dir=. → --config-dir: settings stand in conf/ and on the command line alone
--epochs 3 → unrecognized arguments: --epochs: settings are written name=value, and --help shows them
log_dir=typed_layers.py → typed_layers.py/runs/bn-digits-seed_0: nothing can be written there
study=replication study.margin=0.5 → …: a study's question and claims stand in its file
until=decided → … goes with a study or a sweep: it gives seeds to several settings
study=replication_quick until=decided max_seeds=1 → …: must be greater than or equal to 2
study=replication_quick until=soon → …: must be 'decided'
-m seed=0,1 hydra.launcher.n_jobs=1 → …: hydra/launcher=basic has no options; choose another,
"""
# What is said of an option after "hydra.launcher.".
OPTIONS = r"""
array n_per_array=0 → n_per_array=0: must be greater than or equal to 1
processes memory_limit=-1 → memory_limit=-1: must be greater than 0
processes n_jobs=two → n_jobs=two: must be a valid integer
array n_jobs=1,2 → n_jobs=1,2: a value with commas is written in quotes, as in 'hydra.launcher.n_jobs="1,2"'
array size=3 → size is no option of hydra/launcher=array; choose one of n_jobs, n_per_array, memory_limit
processes n_job=3 → n_job is no option of hydra/launcher=processes; did you mean hydra.launcher.n_jobs?
processes _target_=os.system → _target_ is no option of hydra/launcher=processes; choose one of
array_local timeout_min=soon → timeout_min=soon: must be a valid integer
array_local timeout_min=0 → timeout_min=0: must be greater than 0
array_slurm partion=gpu → partion is no option of hydra/launcher=array_slurm; did you mean hydra.launcher.partition?
array_slurm _target_=os.system → _target_ is no option of hydra/launcher=array_slurm; choose one of
array_slurm nodes=2 → nodes is no option of hydra/launcher=array_slurm; choose one of
array_slurm tasks_per_node=2 → tasks_per_node is no option of hydra/launcher=array_slurm; did you mean
submitit_slurm partition=gpu,long → partition=gpu,long: a value with commas is written in quotes, as in
"""


def pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.strip().splitlines():
        typed, _, told = line.partition(" → ")
        yield typed, shlex.split(typed)[-1] + told[1:] if told.startswith("…") else told


CASES = [(word, f"{word}: {told}") for told, words in VALUES.items() for word in words.split(" ")]
CASES += pairs(LINES)
for typed, told in pairs(OPTIONS):
    launcher, option = typed.split(" ")
    CASES.append((f"-m norm=bn,gn hydra/launcher={launcher} hydra.launcher.{option}", f"hydra.launcher.{told}"))


@pytest.mark.parametrize(("typed", "line"), CASES, ids=[typed for typed, _ in CASES])
def test_one_line_says_what_was_meant(here: Path, monkeypatch, refused, typed: str, line: str) -> None:
    if "_slurm" in typed or "_local" in typed:
        pytest.importorskip("submitit")
    monkeypatch.syspath_prepend(here)
    (here / "typed_layers.py").write_text("class Layer: ...")
    (here / "broken.py").write_text("class Layer(:")
    words = shlex.split(typed)
    told = refused(main, [*words, *["data=digits"] * (not any("data" in word.lower() for word in words))])
    assert told.startswith(f"normlab: {line}")
    assert {file.name for file in here.iterdir()} <= {"typed_layers.py", "broken.py", "__pycache__"}


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_named(group: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{group}=xyzzy: choose one of {', '.join(choices(group))}$"):
        load(f"{group}=xyzzy")
