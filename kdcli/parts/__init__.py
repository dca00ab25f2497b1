"""Resumable parts: all long work on rows is cut into them, and an engine says where they are made."""

from typing import TYPE_CHECKING

from kdcli.parts.engine import Engine, Loaded, LocalEngine, in_turn, place, processes, usable_cores
from kdcli.parts.parts import RECORD, Parts, claim_folder, is_main_process, process_count

if TYPE_CHECKING:
    from kdcli.config.schema import Settings

__all__ = ["RECORD", "Engine", "Loaded", "LocalEngine", "Parts", "claim_folder", "engine_of", "in_turn"]
__all__ += ["is_main_process", "place", "process_count", "processes", "usable_cores"]


def engine_of(settings: "Settings") -> Engine:
    """Return the engine that settings choose."""
    if settings.engine == "local":
        return LocalEngine()
    from kdcli.parts.ray_engine import RayEngine

    return RayEngine(settings.ray_address, settings.device)
