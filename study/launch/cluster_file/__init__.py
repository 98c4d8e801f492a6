"""The files of ``cluster/``, filled from a study file."""
