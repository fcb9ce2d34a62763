"""Training: K networks as one LightningModule, what a run leaves, `run` and `run_array`."""

from normlab.training.classifier import Classifier
from normlab.training.run import run, run_array

__all__ = ["Classifier", "run", "run_array"]
