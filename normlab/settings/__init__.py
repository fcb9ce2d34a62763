"""Settings with their types and ranges, the jobs that a command line asks for, and studies. No torch here.

What is not here is imported from its own file: `plan`, which composes with Hydra, `custom`, which tries a layer, …
"""

from normlab.settings.conf import GROUPS, choices, conf_dir, defaults, group_values
from normlab.settings.messages import check_recorded, checked, line
from normlab.settings.model import Probe, Settings, check_loggers, flatten, needs_gpu
from normlab.settings.parts import DATA_TITLES, Data, Norm, Penalty
from normlab.settings.shape import NORM_CHANNELS, small_network
from normlab.settings.study import MARGIN, NO_STUDY, STUDY_FILE, Claim, Study, protocol, sweep_of

__all__ = [
    "DATA_TITLES", "GROUPS", "MARGIN", "NORM_CHANNELS", "NO_STUDY", "STUDY_FILE", "Claim", "Data", "Norm", "Penalty",
    "Probe", "Settings", "Study", "check_loggers", "check_recorded", "checked", "choices", "conf_dir", "defaults",
    "flatten", "group_values", "line", "needs_gpu", "protocol", "small_network", "sweep_of",
]  # fmt: skip
