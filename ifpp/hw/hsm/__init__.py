"""The factory's keys in a token behind PKCS#11; the one home of the library python-pkcs11."""

from ifpp.hw.hsm.keys import Pkcs11Keys

__all__ = ["Pkcs11Keys"]
