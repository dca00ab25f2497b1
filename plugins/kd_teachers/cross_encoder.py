"""A cross-encoder: a classifier of Hugging Face that reads both texts of a pair at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from kdcli.api import API_VERSION

if TYPE_CHECKING:
    from kdcli.models.classifier import Classifier

api_version = API_VERSION


class Options(BaseModel):
    """The table ``[teachers.cross-encoder]`` of a profile: there is nothing to choose."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> Classifier:
    """Load the model; see ``kdcli.api.TeacherPlugin``.

    Its outputs are raw: a function that the settings of Sentence Transformers name is not applied.
    """
    from kdcli.models.classifier import load_classifier

    classifier = load_classifier(model, **how)
    classifier.pairs_only = True
    return classifier
