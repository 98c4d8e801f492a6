"""The embedded example study: text found on any machine and a small base model trained here."""

from pathlib import Path

BASE_MODEL = Path(__file__).parent / "base_model"
