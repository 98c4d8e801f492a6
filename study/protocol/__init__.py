"""The mathematics of a verdict: tune each arm once, confirm in paired rounds, look after each.

Pure: finished trials and losses in, frozen records out. `search` says which trials come next and
what was chosen, by a `surface` over hyperparameters and dataset size; `looks` turns the rounds'
losses into the sequence of looks, each judged by `decision` at the `levels` that hold however
often one looks; `planning` says beforehand what a number of rounds can detect and costs. Losses
are in nats; those of the surface are in units of rho, the difference that matters.
"""
