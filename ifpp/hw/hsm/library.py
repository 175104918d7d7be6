"""One PKCS#11 library of this process: begun for many threads, begun anew after a loss, ended with its last user.

python-pkcs11 calls C_Initialize(NULL), which says that there is one thread; libraries crash under more. Here it gets
CKF_OS_LOCKING_OK. C_Finalize while another thread is inside is undefined, so whoever calls passes a gate.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

from pkcs11 import _pkcs11
from pkcs11 import exceptions as faults

from ifpp.errors import CustodyError, IfppError, ServiceError, SettingsError

_OS_LOCKING_OK = 2
_OK, _NOT_INITIALIZED, _ALREADY_INITIALIZED = 0, 0x190, 0x191

_WRONG_KEY = (
    faults.KeyTypeInconsistent,
    faults.KeySizeRange,
    faults.KeyUnextractable,
    faults.AttributeSensitive,
    faults.AttributeTypeInvalid,
    faults.AttributeValueInvalid,
    faults.TemplateIncomplete,
    faults.TemplateInconsistent,
    faults.MechanismInvalid,
    faults.MechanismParamInvalid,
    faults.FunctionNotSupported,
)
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], type[IfppError], str, str], ...] = (
    ((faults.PinLocked,), SettingsError, "KEYS.PIN_LOCKED", "too many wrong PINs"),
    (
        (faults.PinIncorrect, faults.PinInvalid, faults.PinLenRange, faults.PinExpired),
        SettingsError,
        "KEYS.PIN",
        "the token refuses the PIN",
    ),
    ((faults.NoSuchToken,), SettingsError, "KEYS.NO_TOKEN", "there is no such token"),
    ((faults.MultipleTokensReturned,), SettingsError, "KEYS.NO_TOKEN", "several tokens have this label"),
    (_WRONG_KEY, CustodyError, "KEYS.ATTRIBUTES", "the token does not do this with this key"),
    (
        (faults.SessionCount, faults.DeviceMemory, faults.HostMemory),
        ServiceError,
        "KEYS.UNREACHABLE",
        "the token takes no more",
    ),
)


class LostError(Exception):
    """The library or the token is not what it was: begin anew. `generation`: of which beginning this is said."""

    def __init__(self, generation: int, reason: str) -> None:
        super().__init__(reason)
        self.generation = generation


def fault_of(error: faults.PKCS11Error, where: str) -> IfppError | None:
    """Return what an exception of the library means for whoever called; None when the token was lost."""
    for kinds, meant, code, detail in _MEANINGS:
        if isinstance(error, kinds):
            return meant(code, f"{detail} ({type(error).__name__})", where=where)
    return None


class Library:
    """Take one with `take`, give it back with `give_back`; users of one path share it."""

    _taken: ClassVar[dict[str, Library]] = {}
    _taking: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str) -> None:
        self.path = path
        self.generation = 0
        self._users = 0
        self._inside = 0
        self._gate = threading.Condition()
        self._raw: Any = None
        self._begun = False
        self._one_at_a_time = False
        self._turn = threading.Lock()

    @classmethod
    def take(cls, path: str) -> Library:
        """Return the library of this path; nothing is loaded yet."""
        with cls._taking:
            found = cls._taken.setdefault(path, cls(path))
            found._users += 1
            return found

    def give_back(self, wait_s: float) -> None:
        """End it with its last user, unless a call that hangs is still inside."""
        with self._taking:
            self._users -= 1
            if self._users:
                return
            del self._taken[self.path]
        with self._gate:
            if self._gate.wait_for(lambda: self._inside == 0, wait_s):
                self._end()

    @contextmanager
    def call(self) -> Iterator[tuple[Any, int]]:
        """Be inside: the library and which beginning this is. Raises LostError when it has to begin anew first."""
        with self._turn if self._one_at_a_time else nullcontext():
            yield from self._enter()

    def _enter(self) -> Iterator[tuple[Any, int]]:
        with self._gate:
            if not self._begun:
                raise LostError(self.generation, "not begun")
            self._inside += 1
            generation = self.generation
        try:
            yield self._raw, generation
        finally:
            with self._gate:
                self._inside -= 1
                self._gate.notify_all()

    def begin_anew(self, generation: int, wait_s: float) -> None:
        """Begin again after the loss of `generation`, unless somebody has done so meanwhile.

        Raises SettingsError KEYS.NO_TOKEN when there is no such library, ServiceError KEYS.UNREACHABLE when a call
        does not come back within `wait_s` or the library does not begin.
        """
        with self._gate:
            if generation != self.generation:
                return
            if not self._gate.wait_for(lambda: self._inside == 0 or generation != self.generation, wait_s):
                raise ServiceError("KEYS.UNREACHABLE", "a call has not come back", where=self.path)
            if generation == self.generation:
                self._end()
                self._begin()

    def _begin(self) -> None:
        self.generation += 1
        try:
            if self._raw is None:
                self._raw = _load(self.path)
            else:
                self._raw.initialize()
        except faults.PKCS11Error as error:
            raise ServiceError("KEYS.UNREACHABLE", f"does not begin ({error})", where=self.path) from error
        self._begun = True
        self._one_at_a_time = self._raw.apart

    def _end(self) -> None:
        if self._begun:
            self._begun = False
            self._raw.finalize()


def _load(path: str) -> Any:
    try:
        ctypes.CDLL(path).C_GetFunctionList  # noqa: B018 - looks it up
    except (OSError, AttributeError):
        raise SettingsError("KEYS.NO_TOKEN", "is no PKCS#11 library that can be loaded", where=path) from None
    return _Threaded(path)


class _Arguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_: ClassVar = [
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    ]


_Function = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)


class _Functions(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_: ClassVar = [
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _Function),
        ("C_Finalize", _Function),
    ]


class _Threaded(_pkcs11.lib):
    """The library of python-pkcs11 with a C_Initialize and C_Finalize of our own.

    Where a library hands out an instance with each C_GetFunctionList, as p11-kit-client.so does, ours is not the one
    that python-pkcs11 uses: its own is begun then, as it would, and is `apart`. That client locks always, but threads
    that wait for each other's answers in it wait for ever when its server dies: one call at a time.
    """

    @property
    def apart(self) -> bool:
        return bool(self.initialized)

    def initialize(self) -> None:
        if self.so not in _functions:
            _functions[self.so] = _functions_of(self.so)
        arguments = _Arguments(flags=_OS_LOCKING_OK)
        _check("C_Initialize", _functions[self.so].C_Initialize(ctypes.byref(arguments)), _ALREADY_INITIALIZED)
        try:
            super().initialize()
        except faults.PKCS11Error as error:
            if "already initialized" not in str(error):
                self._finalize_ours()
                raise
        else:
            self._finalize_ours()

    def finalize(self) -> None:
        if self.initialized:
            super().finalize()
        else:
            self._finalize_ours()

    def _finalize_ours(self) -> None:
        _check("C_Finalize", _functions[self.so].C_Finalize(None), _NOT_INITIALIZED)


_functions: dict[str, _Functions] = {}


def _functions_of(path: str) -> _Functions:
    found = ctypes.POINTER(_Functions)()
    _check("C_GetFunctionList", ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(found)), _OK)
    return found.contents


def _check(what: str, status: int, also: int) -> None:
    if status not in (_OK, also):
        raise faults.PKCS11Error(f"{what}: {status:#x}")
