"""Tables: read, write, hash. The only place that knows file formats."""

SEPARATOR = "|"
"""What stands between the labels of a text in a multi-label table; an empty text is no label at all."""
