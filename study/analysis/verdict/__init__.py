"""Whether the evidence allows a verdict, which one, and what would allow more."""
