"""Paired rounds at the asked size, and what may be said after each of them.

`looks` turns the rounds' losses into a sequence of looks, each judged by `decision` at the
`levels` that hold however often one looks; `planning` says beforehand what a number of rounds can
detect and costs. Losses are in nats.
"""
