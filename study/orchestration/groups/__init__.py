"""Groups of workers that train trials, one after another, as Ray Train jobs."""
