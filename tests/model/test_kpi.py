"""The document of a window and the figures of its parts speak of the same things."""

from __future__ import annotations

import msgspec

from ifpp.model.kpi import Figures, Kpi


def test_a_window_has_every_figure_its_parts_have() -> None:
    """Two structs, because neither can inherit from the other: what is added to one is added to both."""
    own = {field.name: (field.type, field.required) for field in msgspec.structs.fields(Figures)}
    whole = {field.name: (field.type, field.required) for field in msgspec.structs.fields(Kpi)}
    assert own.items() <= whole.items()
