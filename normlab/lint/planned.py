"""Before a study starts: what its settings alone tell."""

from collections.abc import Sequence

from normlab.lint.asked import asked
from normlab.lint.comparison import confounded, one_rate, selection, unequal
from normlab.lint.finding import Finding
from normlab.lint.network import BY_CONSTRUCTION, PER_SETTING, parameters
from normlab.lint.seeds import Spread, planned_seeds
from normlab.settings import Settings, Study

__all__ = ["lint"]


def lint(runs: Sequence[Settings], study: Study | None = None, spread: Spread | None = None) -> list[Finding]:
    """What may mislead in these runs, gravest first: settings that cannot be what they are called, then comparisons.

    Of one run alone, only what is wrong by construction. Runs of several data sets are several studies.

    Args:
        runs: every run that is planned, finished ones included.
        study: whose margin is the difference asked about, and whose claims say what is compared rather than chosen.
        spread: standard deviation over seeds, where some runs have shown it; assumed otherwise.
    """
    found: list[Finding] = []
    for data in dict.fromkeys(each.data.name for each in runs):
        cells = asked([each for each in runs if each.data.name == data])
        if len(runs) == 1:
            found += [finding for rule in BY_CONSTRUCTION for finding in rule(cells)]
            continue
        found += [finding for rule in PER_SETTING for finding in rule(cells)]
        found += confounded([cell.levels for cell in cells])
        small = [cell for cell in cells if cell.settings.net.name == "small"]  # others are compared by the report
        found += unequal([(cell.settings.norm.name, cell.label, parameters(cell.settings)) for cell in small])
        found += selection(cells, study)
        found += one_rate(cells)
        found += planned_seeds(cells, study, spread)
    return list(dict.fromkeys(found))
