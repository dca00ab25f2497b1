"""A cross-encoder: a classifier of Hugging Face that reads both texts of a pair at once."""

from typing import Any

from kd_teachers.classifier import Options, api_version
from kdcli.api import LoadedTeacher

__all__ = ["Options", "api_version", "load"]


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> LoadedTeacher:
    """Load the model; see ``kdcli.api.TeacherPlugin``.

    Its outputs are raw: a function that the settings of Sentence Transformers name is not applied.
    """
    from kdcli.models.classifier import load_classifier

    loaded = load_classifier(model, **how)
    loaded.pairs_only = True
    return loaded
