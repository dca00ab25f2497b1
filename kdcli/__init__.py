"""Distil a large fine-tuned text classifier into a small, fast student.

``kdcli.load_student(folder).predict(["a text"])`` predicts.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_student"]


def __getattr__(name: str) -> Any:
    """Import what is asked for by its first use: the package alone costs nothing."""
    if name == "load_student":
        return import_module("kdcli.student.loaded").load_student
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
