"""A study's records, on an Optuna storage and in a folder or bucket.

Import `study_store`, which writes, and `reader` and `opening`, which read.
It decides nothing and draws no points' values.
"""
