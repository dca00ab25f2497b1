"""The built-in part-of-speech taggers."""
