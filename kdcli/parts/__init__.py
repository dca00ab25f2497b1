"""Resumable parts: all long work on rows is cut into them, and an engine says where they are made."""

from kdcli.parts.engine import Engine, Loaded, LocalEngine, engine_of, follow_parent, processes, usable_cores
from kdcli.parts.parts import RECORD, Parts, claim_folder, is_main_process, process_count, process_index

__all__ = [
    "RECORD",
    "Engine",
    "Loaded",
    "LocalEngine",
    "Parts",
    "claim_folder",
    "engine_of",
    "follow_parent",
    "is_main_process",
    "process_count",
    "process_index",
    "processes",
    "usable_cores",
]
