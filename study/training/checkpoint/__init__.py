"""A trial's state on disk or in a bucket, so that it goes on as if it had never stopped."""
