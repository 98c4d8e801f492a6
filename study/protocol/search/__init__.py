"""Which trials tune an arm, and what they choose: a surface over hyperparameters and dataset size.

Pure: finished trials in, the next step's trials or a choice out. Losses of the surface are in
units of rho, the difference that matters.
"""
