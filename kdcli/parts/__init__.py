"""Resumable parts: the one mechanism of all long row work."""
