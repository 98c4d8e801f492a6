"""The embedded example study: text found on any machine and a small base model trained here."""
