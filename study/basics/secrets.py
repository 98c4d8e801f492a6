"""What must not be in the definition of an actor, a task or a job.

Ray shows definitions to everyone who reaches the cluster's dashboard, and logs them.
"""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|CONNECTION_STRING|(^|_)KEY(_ID)?$", re.IGNORECASE
)
_ONE_TOKEN_THAT_IS_NONE = "TOKENIZERS_PARALLELISM"


def is_secret(name: str) -> bool:
    """Whether an environment variable is a credential, by its name."""
    return bool(_SECRET.search(name)) and name != _ONE_TOKEN_THAT_IS_NONE
