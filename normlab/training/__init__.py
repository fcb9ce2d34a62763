"""Training one network: the LightningModule, its callbacks, and `run`."""

from normlab.training.classifier import Classifier
from normlab.training.run import run

__all__ = ["Classifier", "run"]
