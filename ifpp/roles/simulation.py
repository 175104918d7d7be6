"""`ifpp sim fleet`: a process that serves virtual chips and the robot that feeds them."""

from __future__ import annotations

from pathlib import Path

from ifpp.errors import SettingsError
from ifpp.sim.fleet import serve_fleet


def fleet(world: Path, stations: list[str], heads: int, apdu_ms: float, handling_ms: float, out: Path) -> None:
    """Serve the slots of `stations` until their units are done; raises SettingsError for a folder without a world."""
    if not (world / "world.json").is_file():
        raise SettingsError("SETTINGS.MISSING", "there is no world.json in it", where=str(world))
    serve_fleet(world, stations, slots=heads, apdu_ms=apdu_ms, handling_ms=handling_ms, out_path=out)
