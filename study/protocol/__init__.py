"""What a study is: its records, its plan, how many steps a trial gets and what they cost.

Plain values that travel between driver, workers, store and report; nothing here does I/O.
"""
