"""A run: its folder, what is up to date in it, and all stages in order."""
