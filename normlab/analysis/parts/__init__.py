"""The parts of a report, one file each; `normlab.analysis.part` says what a part is."""
