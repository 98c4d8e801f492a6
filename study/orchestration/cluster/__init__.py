"""The Ray cluster: connected, measured, waited for."""
