"""`python -m tests.tui.screens FOLDER`: every screen and state as SVG, and as PNG where there is a Chromium.

What `test_snapshots` compares, a person can look at.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ifpp.tui.app import StationScreen
from ifpp.tui.marks import ASCII, UNICODE
from ifpp.tui.words import Words
from tests.tui import pictures
from tests.tui.line_pictures import LinePicture, line_pictures

SECONDS_A_PICTURE = 60


class Still:
    """A clock that stands."""

    def now(self) -> datetime:
        return datetime(2026, 11, 22, 8, 16, tzinfo=UTC)

    def monotonic(self) -> float:
        return 1.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Picture:
    """One state of a screen; `age_s`: how old what was heard is, `page`: help, alarms or hand."""

    documents: dict[str, bytes]
    size: tuple[int, int] = (80, 24)
    age_s: float = 0.5
    colour: bool = True
    ascii_only: bool = False
    language: str = "en"
    page: str = ""
    key: str = ""

    def screen(self) -> StationScreen:
        screen = StationScreen(
            Path("/nowhere"),
            Words(self.language),
            ASCII if self.ascii_only else UNICODE,
            Still(),
            colour=self.colour,
        )
        for at, document in self.documents.items():
            screen.heard.take(at, document, 1.0 - self.age_s)
        screen.heard.operator, screen.heard.role = "anna", "operator"
        screen.desk.head = "h02"
        screen.desk.overlay = self.page
        if self.key:
            screen.desk.press(self.key, "14:00")
        return screen


PICTURES: dict[str, Picture | LinePicture] = {
    "station-normal": Picture(pictures.normal()),
    "station-alarm": Picture(pictures.alarmed()),
    "station-stale": Picture(pictures.alarmed(), age_s=42),
    "station-no-colour": Picture(pictures.alarmed(), colour=False),
    "station-ascii": Picture(pictures.alarmed(), ascii_only=True, colour=False),
    "station-small": Picture(pictures.alarmed(), size=(20, 5)),
    "station-64-heads": Picture(pictures.crowded()),
    "station-large": Picture(pictures.alarmed(), size=(140, 40)),
    "station-first": Picture({}),
    "station-german": Picture(pictures.alarmed(), language="de"),
    "station-chinese": Picture(pictures.alarmed(), language="zh"),
    "station-spanish": Picture(pictures.alarmed(), language="es"),
    "station-alarms": Picture(pictures.alarmed(), page="alarms"),
    "station-help": Picture(pictures.normal(), page="help"),
    "station-question": Picture(pictures.alarmed(), key="f3"),
    "station-hand-over": Picture(pictures.alarmed(), key="f9"),
    **line_pictures(Still()),
}


async def drawn(picture: Picture | LinePicture) -> str:
    """Return the SVG of a picture."""
    screen = picture.screen()
    async with screen.run_test(size=picture.size) as pilot:
        await pilot.pause()
        return screen.export_screenshot()


def to_png(svg: Path, chromium: str) -> None:
    """Write the PNG beside an SVG."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg.read_text())
    assert box is not None
    width, height = (round(float(one)) + 1 for one in box.groups())
    words = [
        chromium,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},{height}",
    ]
    words += [f"--screenshot={svg.with_suffix('.png')}", svg.resolve().as_uri()]
    subprocess.run(words, check=True, timeout=SECONDS_A_PICTURE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    for name, picture in PICTURES.items():
        svg = folder / f"{name}.svg"
        svg.write_text(asyncio.run(drawn(picture)), encoding="utf-8")
        if chromium:
            to_png(svg, chromium)
        sys.stdout.write(f"{svg.with_suffix('.png') if chromium else svg}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screens"))
