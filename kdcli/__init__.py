"""Distil a large fine-tuned text classifier into a small, fast student."""

__version__ = "0.1.0"
