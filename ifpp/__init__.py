"""ifpp: line controller for In-Factory Profile Provisioning of eSIMs (GSMA SGP.41)."""

__version__ = "0.1.0"
