"""Sends a model folder to the Hugging Face Hub with the user's own login."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.basics.errors import UserError

_LOGIN = "Log in with `hf auth login`, or set HF_TOKEN."


def check_login(repository: str) -> None:
    """Refuse early, before hours of training, what could not be sent afterwards.

    Raises:
        UserError: no repository's name, nobody is logged in, or the Hub does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise UserError(
            f"--push-to-hub {repository}: is no repository. Give NAME or OWNER/NAME."
        ) from None
    with _explained(repository):
        HfApi().whoami()


def push(folder: Path, repository: str) -> str:
    """Upload the folder, to a private repository unless it exists already.

    Returns:
        The repository's URL.

    Raises:
        UserError: it cannot be sent; the folder stays as it is.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _explained(repository):
        created = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=created.repo_id,
            folder_path=folder,
            commit_message="Model and card of a finetune-study run",
        )
    return str(created)


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    try:
        yield
    except LocalTokenNotFoundError:
        raise UserError(f"--push-to-hub {repository}: nobody is logged in. {_LOGIN}") from None
    except HfHubHTTPError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise UserError(
                f"--push-to-hub {repository}: the Hub refuses this login ({code}). {_LOGIN}"
            ) from None
        raise UserError(
            f"--push-to-hub {repository}: the Hub answers {code}. Try again with "
            "`hf upload`, or run this command once more."
        ) from None
    except Exception as error:  # the HTTP client that the Hub's uses has changed before
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"--push-to-hub {repository}: the Hub does not answer ({first}).") from None
