"""How fast normlab trains, beside the script that it replaces: `python -m benchmarks.study`."""
