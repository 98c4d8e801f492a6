"""Commented starting files for `study init`."""

from __future__ import annotations

import json
import string
from pathlib import Path

TEMPLATES = {
    "causal-lm": "fine-tune a causal language model",
    "classification": "fine-tune a text classifier",
    "gpu-cluster": "several GPUs per trial, on a cluster",
    "demo": "the embedded example",
}
"""What each template is for, by name."""


def render_template(name: str, **paths: str | Path) -> str:
    """The text of a starting file.

    Args:
        name: one of `TEMPLATES`.
        paths: what the template leaves open; ``demo``: `model`, `task` and `general`.

    Raises:
        KeyError: the template does not exist, or leaves something open that `paths` lacks.
    """
    if name not in TEMPLATES:
        raise KeyError(f"there is no template named {name!r}; there are {', '.join(TEMPLATES)}")
    text = (Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8")
    # JSON strings are YAML strings: a path with a colon or a quote stays one.
    quoted = {key: json.dumps(str(path)) for key, path in paths.items()}
    return string.Template(text).substitute(quoted)
