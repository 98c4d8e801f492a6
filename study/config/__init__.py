"""study.yaml and search spaces, read and validated.

Import `load` (a `StudyConfig` from a file), `models` and `space`; `schema` for editors.
It trains nothing, and touches no data but to see that files exist.
"""
