"""Masked-language-model filling as a generator (Tang, Lu, Lin 2019)."""
