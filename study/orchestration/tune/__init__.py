"""What Ray Tune is given: a searcher and a trainable that hand on what the ledger says."""
