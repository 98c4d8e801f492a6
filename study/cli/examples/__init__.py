"""What a new user starts from: the files of `study init` and the embedded example."""
