"""The texts of the screens, from one catalogue a language: `words/<language>.toml`.

`words/codes/<language>.toml` has those of alarms, error codes and what was done; English is what the station says.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "de", "zh", "es")


class Words:
    """`words("key", name=value)` is the text of a key; `of` that of a code which may be unknown."""

    def __init__(self, language: str = "en") -> None:
        self.language = language
        self._texts = catalogue(language)

    def __call__(self, key: str, /, **values: object) -> str:
        return self._texts[key].format(**values)

    def of(self, kind: str, code: str, otherwise: str) -> str:
        """Return the text of `kind.code`, `otherwise` where the catalogue has none: the station may be newer."""
        return self._texts.get(f"{kind}.{code}", otherwise)

    def reasons(self) -> list[str]:
        """Why people stop something: the choice that is offered, in order."""
        return [self._texts[key] for key in sorted(self._texts) if key.startswith("reason.")]


@cache
def catalogue(language: str) -> dict[str, str]:
    """Return a catalogue: dotted key -> text; raises KeyError for a language without one."""
    if language not in LANGUAGES:
        raise KeyError(language)
    folder = files("ifpp.tui") / "words"
    parts = [folder / f"{language}.toml", *([] if language == "en" else [folder / "codes" / f"{language}.toml"])]
    found: dict[str, str] = {}
    for part in parts:
        for table, texts in tomllib.loads(part.read_text(encoding="utf-8")).items():
            found |= {f"{table}.{key}": text for key, text in texts.items()}
    return found
