"""Certificate chains of an eUICC and of an SM-DPf up to a trusted CI (SGP.22 4.5; factory-side checks).

Every certificate first meets the plan of `certificate` (steps 1-6). Plan for a chain, leaf to root:
   7. One to four certificates; the last one's authorityKeyIdentifier names a trusted CI root.
   8. authorityKeyIdentifier = issuer's subjectKeyIdentifier, issuer name = issuer's subject.
   9. The issuer's signature holds.
  10. No CA has more CAs below it than its path length allows.
  11. Each certificate, root included, is valid at the time passed in.
For an eUICC in addition:
  12. Its subject's serialNumber is the EID.
  13. Its subject's organization is the EUM's.
  14. The EID lies in the range every CA above permits; at least one CA names a range.
For an SM-DPf in addition:
  15. Its subjectAltName has exactly one registeredID: the SM-DP+ OID.

A chain that held once is remembered by its bytes; the dates (11) are checked each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise

from cryptography.exceptions import InvalidSignature
from cryptography.x509 import AuthorityKeyIdentifier, ExtensionNotFound, load_der_x509_certificate
from cryptography.x509.oid import NameOID

from ifpp.errors import VerificationError
from ifpp.model.ids import Eid
from ifpp.trust.certificate import Certificate, CertificatePolicies, Role, read_certificate
from ifpp.trust.keys import PublicKey

MAX_CHAIN = 4
_REMEMBERED_CHAINS = 64


@dataclass(frozen=True, slots=True)
class EuiccKey:
    """The signature key of one eUICC whose chain was verified."""

    eid: Eid
    key: PublicKey


@dataclass(frozen=True, slots=True)
class SmdpIdentity:
    """An SM-DPf whose CERT.DPpb chain was verified: OID in dotted form, key, and the chain's bytes, leaf first."""

    oid: str
    key: PublicKey
    chain: tuple[bytes, ...]

    @property
    def curve_name(self) -> str:
        return self.key.curve_name


class TrustStore:
    """The CI roots this factory trusts, and the chains verified against them. Safe for several threads."""

    def __init__(self, roots: Iterable[bytes], policies: CertificatePolicies | None = None) -> None:
        """Take the roots as DER; raises VerificationError TRUST.CHAIN for one that is no CI root or comes twice."""
        self._policies = policies or CertificatePolicies()
        self._roots: dict[bytes, Certificate] = {}
        for der in roots:
            root = self._read_root(der)
            if root.subject_key_id in self._roots:
                root.refuse("another root has the same key identifier")
            self._roots[root.subject_key_id or b""] = root
        self._issuers = lru_cache(_REMEMBERED_CHAINS)(self._verify_chain)
        self._smdps = lru_cache(_REMEMBERED_CHAINS)(self._verify_smdp)

    @property
    def root_key_ids(self) -> frozenset[bytes]:
        """Key identifiers (CI PKIDs, 20 bytes) of the trusted roots."""
        return frozenset(self._roots)

    def euicc(self, certificate: bytes, eum_chain: Sequence[bytes], eid: Eid, at: datetime) -> EuiccKey:
        """Verify CERT.EUICC (DER) under its EUM chain (EUM first, root excluded) for this EID at this time.

        Raises VerificationError TRUST.CHAIN.
        """
        issuers = self._issuers(tuple(eum_chain), Role.EUM)
        leaf = read_certificate(certificate, Role.EUICC, self._policies)
        _check_issued(leaf, issuers[0])
        for member in (leaf, *issuers):
            member.check_dates(at)  # 11
        _check_euicc_subject(leaf, issuers, eid)
        return EuiccKey(eid, leaf.key)

    def check_eum(self, eum_chain: Sequence[bytes], at: datetime) -> None:
        """Verify an EUM chain (EUM first, root excluded, DER) alone, before its eUICCs; raises TRUST.CHAIN."""
        for member in self._issuers(tuple(eum_chain), Role.EUM):
            member.check_dates(at)  # 11

    def smdp(self, chain: Sequence[bytes], at: datetime, role: Role = Role.DPPB) -> SmdpIdentity:
        """Verify an SM-DPf's or SM-DP+'s chain (CERT.DPpb, or another role, first; root excluded, DER) at this time.

        Raises VerificationError TRUST.CHAIN.
        """
        identity, members = self._smdps(tuple(chain), role)
        for member in members:
            member.check_dates(at)  # 11
        return identity

    def _verify_smdp(self, chain: tuple[bytes, ...], role: Role) -> tuple[SmdpIdentity, tuple[Certificate, ...]]:
        members = self._verify_chain(chain, role)
        leaf = members[0]
        return SmdpIdentity(leaf.registered_id(), leaf.key, chain), members  # 15

    def _verify_chain(self, chain: tuple[bytes, ...], first: Role) -> tuple[Certificate, ...]:
        """Verify steps 1-10 of a chain whose first certificate has this role; return it with its root appended."""
        if not 1 <= len(chain) <= MAX_CHAIN:  # 7
            raise VerificationError("TRUST.CHAIN", f"a chain of {len(chain)} certificates", where=first.value)
        roles = [first] + [Role.SUB_CA] * (len(chain) - 1)
        members = [read_certificate(der, role, self._policies) for der, role in zip(chain, roles, strict=True)]
        root = self._roots.get(members[-1].authority_key_id or b"")
        if root is None:  # 7
            members[-1].refuse("no trusted CI issued it")
        members.append(root)
        for member, issuer in pairwise(members):
            _check_issued(member, issuer)
        first_is_ca = first is Role.EUM
        for index, member in enumerate(members[1:], start=1):  # 10
            below = index if first_is_ca else index - 1
            if member.path_length is not None and member.path_length < below:
                member.refuse("more CAs below it than its path length allows")
        return tuple(members)

    def _read_root(self, der: bytes) -> Certificate:
        root = read_certificate(der, Role.CI, self._policies)
        if root.authority_key_id not in (None, root.subject_key_id):
            root.refuse("a root names another issuer")
        _check_signed(root, root)
        return root


@lru_cache(_REMEMBERED_CHAINS)
def ci_key_id(chain: tuple[bytes, ...]) -> bytes:
    """Return the key identifier (CI PKID) of the root a chain (leaf first, root excluded, DER) names; verifies nothing.

    Raises VerificationError TRUST.CHAIN when it names none.
    """
    try:
        last = load_der_x509_certificate(chain[-1])
        named = last.extensions.get_extension_for_class(AuthorityKeyIdentifier).value.key_identifier
    except (ValueError, ExtensionNotFound) as error:
        raise VerificationError("TRUST.CHAIN", f"its issuer cannot be told ({error})", where="CERT.DPpb") from error
    if named is None:
        raise VerificationError("TRUST.CHAIN", "its authorityKeyIdentifier names no key", where="CERT.DPpb")
    return named


def _check_issued(member: Certificate, issuer: Certificate) -> None:
    if member.authority_key_id is None or member.authority_key_id != issuer.subject_key_id:  # 8
        member.refuse(f"its authorityKeyIdentifier is not that of {issuer.what}")
    _check_signed(member, issuer)


def _check_signed(member: Certificate, issuer: Certificate) -> None:
    try:
        member.parsed.verify_directly_issued_by(issuer.parsed)  # 8, 9
    except ValueError:
        member.refuse(f"its issuer name is not that of {issuer.what}")
    except (InvalidSignature, TypeError):
        member.refuse(f"the signature of {issuer.what} does not hold")


def _check_euicc_subject(leaf: Certificate, issuers: Sequence[Certificate], eid: Eid) -> None:
    named = leaf.subject_value(NameOID.SERIAL_NUMBER)
    if named != eid:  # 12
        leaf.refuse(f"it is the certificate of EID {named[:40]}, not of {eid}")
    organization = leaf.organization
    if organization != issuers[0].organization:  # 13
        leaf.refuse("its organization is not that of the EUM")
    limits = [ranges for issuer in issuers if (ranges := issuer.ein_ranges())]
    if not limits:  # 14
        issuers[0].refuse("it permits no EID range")
    for ranges in limits:
        if not any(eid.startswith(limit.prefix) and limit.organization in (None, organization) for limit in ranges):
            leaf.refuse("its EID lies outside the range the EUM may certify")
