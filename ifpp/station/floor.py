"""What all heads of a station share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from ifpp.metrics import Metrics
from ifpp.model.clock import Clock
from ifpp.settings import Station
from ifpp.station.board import Board
from ifpp.station.edges import AtEdge, pass_by
from ifpp.station.gate import Gate
from ifpp.station.jobs import Jobs
from ifpp.station.journal import Journal
from ifpp.station.life import Lives
from ifpp.store.client import StoreClient
from ifpp.trust.chain import TrustStore


@dataclass(frozen=True, slots=True)
class Floor:
    """The station around a head. `at_edge` is called at every named instant of a unit's way (see `Edge`)."""

    settings: Station
    clock: Clock
    journal: Journal
    store: StoreClient
    trust: TrustStore
    jobs: Jobs
    board: Board
    gate: Gate
    lives: Lives
    metrics: Metrics
    stopping: asyncio.Event
    at_edge: AtEdge = pass_by
