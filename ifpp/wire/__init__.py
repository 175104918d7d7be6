"""Bytes <-> objects, no I/O: TLV, APDU, ES10, bound profile packages, the FPX/1 dialect, the files between actors."""
