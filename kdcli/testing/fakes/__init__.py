"""Plugins that keep the contract and cost nothing: stand-ins for a generator, a student and a tagger.

Each module is a plugin as an entry point names it: ``{"students": {"fake": "kdcli.testing.fakes.student"}}``.
"""
