"""A student as an HTTP service."""
