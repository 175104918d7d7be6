"""config/REFERENCE.md says every key, and what the sample files and the types say today."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.settings import Station, load_site, load_station
from scripts import reference

ROOT = Path(__file__).parent.parent


def test_the_reference_is_current() -> None:
    text = (ROOT / "config" / "REFERENCE.md").read_text(encoding="utf-8")
    assert text == reference.reference(), "make reference"


def test_a_key_nobody_speaks_of_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in reference.SAMPLES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        rows = (ROOT / name).read_text(encoding="utf-8").splitlines()
        (tmp_path / name).write_text("\n".join(row for row in rows if "max_unacked" not in row), encoding="utf-8")
    monkeypatch.setattr(reference, "ROOT", tmp_path)
    with pytest.raises(reference.StaleError, match=r"outbox.* max_unacked"):
        reference.reference()


@pytest.mark.parametrize("row", ["[outbox]\nmax_unnacked = 1  # typo", "[outbix]\nmax_unacked = 1"])
def test_a_sample_that_speaks_of_nothing_is_found(tmp_path: Path, row: str) -> None:
    file = tmp_path / "st01.toml"
    file.write_text(row)
    with pytest.raises(reference.StaleError, match="there is no"):
        reference._sample(file, list(reference.tables_of(Station)))


def test_with_every_comment_taken_for_a_setting_the_samples_still_load(tmp_path: Path) -> None:
    """What the sample files suggest is accepted as it stands, too."""
    for name in ("config/site.toml", "stations/st01.toml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        rows = [row.removeprefix("# ") if _is_setting(row) else row for row in text.splitlines()]
        file = tmp_path / Path(name).name
        file.write_text("\n".join(rows), encoding="utf-8")
        assert (load_site if "site" in name else load_station)(file)


def _is_setting(row: str) -> bool:
    bare = row.removeprefix("# ")
    return bare != row and (bare.startswith("[") or " = " in bare.partition("#")[0]) and not bare[0].isupper()
