"""Any Hugging Face model with a head for classes or a score: encoders and decoders."""

from typing import Any

from pydantic import BaseModel

from kdcli.api import API_VERSION, LoadedTeacher

api_version = API_VERSION


class Options(BaseModel, extra="forbid", frozen=True, use_attribute_docstrings=True):
    """The table ``[teachers.NAME]`` of a profile for such a model: there is nothing to choose."""


def load(model: str, options: Options, *, labels: tuple[str, ...], **how: Any) -> LoadedTeacher:
    """Load the model; see ``kdcli.api.TeacherPlugin``."""
    from kdcli.models.classifier import load_classifier

    return load_classifier(model, **how)
