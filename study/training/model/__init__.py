"""The base model: found, checked, laid out in blocks, loaded and saved."""
