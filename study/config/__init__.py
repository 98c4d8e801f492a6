"""study.yaml and search spaces, read and validated.

`load` makes a `StudyConfig` from a file. It trains nothing, and touches no data but to see that
files exist.
"""
