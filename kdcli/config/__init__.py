"""Profiles: TOML files of settings, what they extend, what overrides them and where each value came from."""
