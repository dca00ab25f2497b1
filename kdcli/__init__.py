"""Distil a large fine-tuned text classifier into a small, fast student.

``kdcli.distil(model, texts)`` makes a student, ``kdcli.load_student(folder)`` loads one, and its
``predict(["a text"])`` predicts.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdcli.distillation.distil import distil_texts as distil
    from kdcli.export.hub import push_to_hub
    from kdcli.student.student import Student, load_student

__version__ = "0.1.0"
__all__ = ["Student", "__version__", "distil", "load_student", "push_to_hub"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the package alone costs nothing."""
    if name in ("Student", "load_student"):
        return getattr(import_module("kdcli.student.student"), name)
    if name == "distil":
        return import_module("kdcli.distillation.distil").distil_texts
    if name == "push_to_hub":
        return import_module("kdcli.export.hub").push_to_hub
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
