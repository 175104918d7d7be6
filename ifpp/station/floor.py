"""What all heads of a station share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ifpp.metrics import Metrics
from ifpp.model.clock import Clock
from ifpp.recipes import RecipeBook
from ifpp.settings import Station
from ifpp.station.board import Board
from ifpp.station.downloads import Downloads
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.gate import Gate
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.station.permits import Permits
from ifpp.station.route import Route
from ifpp.station.serials import FixtureSerials, Serials
from ifpp.station.supplier import Supplier
from ifpp.trust.chain import TrustStore


@dataclass(frozen=True, slots=True)
class Floor:
    """The station around a head. `at_edge` is called at every named instant of a unit's way (see `Edge`).

    `permits`: where chips that obey the device maker alone get his word from; None: nobody is asked. `route`: the way
    to the plant's MES; None: there is none, nobody is asked and what was used up is not told. `downloads`: the way to
    SM-DP+; None: nothing is downloaded. `recipes`: those job
    orders choose from.
    """

    settings: Station
    clock: Clock
    journal: Journal
    store: Supplier
    trust: TrustStore
    jobs: Jobs
    board: Board
    gate: Gate
    lives: Lives
    metrics: Metrics
    stopping: asyncio.Event
    at_edge: AtEdge = pass_by
    permits: Permits | None = None
    route: Route | None = None
    serials: Serials = FixtureSerials()  # noqa: RUF009 - without a state
    downloads: Downloads | None = None
    recipes: RecipeBook = RecipeBook()  # noqa: RUF009 - never changes
