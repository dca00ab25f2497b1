"""Transfer sets: unlabelled texts that look like the task."""
