"""Training: K networks as one LightningModule, what a run leaves, `run` and `run_array`."""

from normlab.training.classifier import Classifier
from normlab.training.run import run, run_array
from normlab.training.trained import predict

__all__ = ["Classifier", "predict", "run", "run_array"]
