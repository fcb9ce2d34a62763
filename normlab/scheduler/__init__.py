"""One scheduler: the runs of a command line, done in this process, in worker processes, by a cluster or by another of
Hydra's launchers, until every run has ended."""
