"""Which trial is next, with which hyperparameters, and when the budget says no."""
