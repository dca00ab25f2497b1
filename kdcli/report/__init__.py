"""One HTML page a run: what it is made of, what came of it, and where student and teacher part."""
