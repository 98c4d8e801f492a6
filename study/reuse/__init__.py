"""Best configurations: chosen, exported, trained on; answers from past studies.

Import `best` and `content` (what a file says), `formats` (other tools), `recipe` (a run of it),
`recommend` and `warm_start`. It starts no run and no Ray.
"""

from __future__ import annotations

from study.reuse.best import BestConfiguration, best_configuration

__all__ = ["BestConfiguration", "best_configuration"]
