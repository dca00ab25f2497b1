"""Any Hugging Face model with a head for classes or a score: encoders and decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from kdcli.api import API_VERSION

if TYPE_CHECKING:
    from kdcli.models.classifier import Classifier

api_version = API_VERSION


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[teachers.NAME]`` of a profile for such a model: there is nothing to choose."""


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> Classifier:
    """Load the model; see ``kdcli.api.TeacherPlugin``."""
    from kdcli.models.classifier import load_classifier

    return load_classifier(model, **how)
