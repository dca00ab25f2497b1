"""A cross-encoder: a classifier of Hugging Face that reads both texts of a pair at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kd_teachers import classifier
from kd_teachers.classifier import Options, api_version

if TYPE_CHECKING:
    from kdcli.models.classifier import Classifier

__all__ = ["Options", "api_version", "load"]


def load(model: str, options: Options, **how: Any) -> Classifier:
    """Load the model; see ``kdcli.api.TeacherPlugin``.

    Its outputs are raw: a function that the settings of Sentence Transformers name is not applied.
    """
    loaded = classifier.load(model, options, **how)
    loaded.pairs_only = True
    return loaded
