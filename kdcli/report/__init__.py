"""One HTML page a run: its settings and results, and the texts on which student and teacher differ."""
