"""Search spaces: what may be searched, over what."""
