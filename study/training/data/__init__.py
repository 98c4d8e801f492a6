"""From a study's sources to tokenised splits and batches."""
