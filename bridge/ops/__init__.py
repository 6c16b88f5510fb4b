"""Running the process: the log, key sources, metrics, clocks, signals and the parent watch."""
