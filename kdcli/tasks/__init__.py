"""The tasks: layouts of their tables, labels and metrics."""
