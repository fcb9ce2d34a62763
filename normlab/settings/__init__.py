"""What is asked for: settings with their types and ranges, from a command line to jobs, and studies. No torch here.

`plan`, which composes with Hydra, and `custom`, which tries a layer, are imported from their own files.
"""

from normlab.settings.conf import choices, conf_dir, defaults, group_values, source_digest
from normlab.settings.model import (
    NORM_CHANNELS,
    Augment,
    Data,
    Norm,
    Penalty,
    Probe,
    Settings,
    check_recorded,
    dotted,
    flatten,
    needs_gpu,
    problem,
)
from normlab.settings.study import STUDY_FILE, Claim, Published, Study, protocol, sweep_of

__all__ = [
    "NORM_CHANNELS",
    "STUDY_FILE",
    "Augment",
    "Claim",
    "Data",
    "Norm",
    "Penalty",
    "Probe",
    "Published",
    "Settings",
    "Study",
    "check_recorded",
    "choices",
    "conf_dir",
    "defaults",
    "dotted",
    "flatten",
    "group_values",
    "needs_gpu",
    "problem",
    "protocol",
    "source_digest",
    "sweep_of",
]
