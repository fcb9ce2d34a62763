"""Training: the LightningModule, its callbacks, the array engine, `run` and `run_array`."""

from normlab.training.classifier import Classifier
from normlab.training.run import run, run_array

__all__ = ["Classifier", "run", "run_array"]
