"""A study's records, on an Optuna storage and in a folder or bucket.

`study_store` writes, `reader` and `opening` read. It decides nothing and draws no points' values.
"""
