"""A student on the Hugging Face Hub, fetched unless it is cached."""

from __future__ import annotations

from pathlib import Path

from kdcli.errors import MissingError, first_line


def fetch(name: str, revision: str | None = None) -> Path:
    """Return the folder with the files of a student of the Hub, by default of its newest revision.

    Without a network, or with ``HF_HUB_OFFLINE``, it is the one that was fetched last.

    Raises:
        MissingError: The Hub has no such student, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # no network, no such name, or one that needs a login
        what = f"{name} is no folder, and cannot be fetched from the Hub: {first_line(error)}"
        raise MissingError(what, hint="check the name; `hf auth login` for one that is private") from error
