"""A teacher and texts in, a student out: the texts, the plan, and the run."""
