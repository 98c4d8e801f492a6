"""The report's charts, each a function of the study's summary."""
