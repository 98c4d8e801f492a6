"""What a study is: its records, its plan, how many steps a trial gets and what they cost.

Every module may be imported: plain values that travel between driver, workers, store and report.
Nothing here does I/O.
"""
