"""Which trial is next, where it runs, and what is looked at before.

Import `runner` (a whole study), `final` (one run), `prepare` (a plan) and `observer`.
It computes no verdict and prints nothing: who follows a study is an `Observer`.
"""
