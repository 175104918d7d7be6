"""A virtual eUICC: a pure state machine from APDU to response, honest to SGP.22 and to the factory dialect FPX/1."""

from ifpp.sim.euicc.card import Euicc

__all__ = ["Euicc"]
