"""Certificate chains: the good ones hold, and every single deviation is refused with its reason."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ifpp.errors import VerificationError
from ifpp.trust.certificate import CertificatePolicies
from ifpp.trust.chain import TrustStore, ci_key_id
from tests.trust import pki
from tests.trust.pki import AT, DPPB, EID, EUICC, EUM, ROOT, SUB_CA, Issued, Recipe, chain, issue

SUB_CAS = CertificatePolicies(sub_ca=frozenset({"2.999.99"}))
OTHER_EID = "89049032000000000000000000000027"


def euicc_chain(root: Recipe = ROOT, eum: Recipe = EUM, euicc: Recipe = EUICC) -> tuple[Issued, Issued, Issued]:
    ci = issue(root)
    manufacturer = issue(eum, ci)
    return ci, manufacturer, issue(euicc, manufacturer)


def verify_euicc(ci: Issued, eum: Issued, euicc: Issued, at: datetime = AT) -> None:
    key = TrustStore([ci.der]).euicc(euicc.der, [eum.der], EID, at)
    assert (key.eid, key.key.point) == (EID, pki.point(euicc.key))


def verify_smdp(root: Recipe = ROOT, dppb: Recipe = DPPB, at: datetime = AT) -> None:
    ci = issue(root)
    leaf = issue(dppb, ci)
    identity = TrustStore([ci.der]).smdp([leaf.der], at)
    assert (identity.oid, identity.chain, identity.key.point) == (pki.SMDP_OID, (leaf.der,), pki.point(leaf.key))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.BrainpoolP256R1()], ids=lambda curve: curve.name)
def test_good_chains_hold_on_both_curves(curve: ec.EllipticCurve) -> None:
    root = replace(ROOT, curve=curve)
    verify_euicc(*euicc_chain(root, replace(EUM, curve=curve), replace(EUICC, curve=curve)))
    ci = issue(root)
    assert TrustStore([ci.der]).smdp([issue(replace(DPPB, curve=curve), ci).der], AT).curve_name == curve.name


@pytest.mark.parametrize(
    "eum",
    [
        replace(EUM, permitted=(("Test EUM", "11111111"), ("Test EUM", "89049032"))),
        replace(EUM, permitted=None, permitted_eins=pki.printable_strings("11111111", "89049032")),
    ],
    ids=["second of two name constraints", "permittedEins"],
)
def test_other_good_ein_ranges(eum: Recipe) -> None:
    verify_euicc(*euicc_chain(eum=eum))


BAD_EUICC_CHAINS = {
    # root
    "root: no CI policy": ("root", {"policies": (pki.POLICY_EUM,)}, "not of this role"),
    "root: no CA": ("root", {"ca": False}, "CA:TRUE"),
    "root: no key identifier": ("root", {"subject_key_id": False}, "subjectKeyIdentifier"),
    "root: expired": ("root", {"not_after": datetime(2026, 2, 1, tzinfo=UTC)}, "expired on 2026-02-01"),
    # EUM
    "EUM: no basicConstraints": ("eum", {"ca": None}, "CA:TRUE"),
    "EUM: basicConstraints not critical": ("eum", {"ca_critical": False}, "CA:TRUE"),
    "EUM: path length not limited": ("eum", {"path_length": None}, "path length is not limited"),
    "EUM: wrong policy": ("eum", {"policies": (pki.POLICY_DPPB,)}, "not of this role"),
    "EUM: policy not critical": ("eum", {"policies_critical": False}, "no critical certificatePolicies"),
    "EUM: no policy": ("eum", {"policies": None}, "no critical certificatePolicies"),
    "EUM: may not sign certificates": ("eum", {"cert_sign": False, "digital_signature": True}, "keyUsage"),
    "EUM: keyUsage not critical": ("eum", {"key_usage_critical": False}, "no critical keyUsage"),
    "EUM: no authority key": ("eum", {"authority_key_id": False}, "no trusted CI"),
    "EUM: no own key id": ("eum", {"subject_key_id": False}, "subjectKeyIdentifier"),
    "EUM: expired": ("eum", {"not_after": datetime(2026, 2, 1, tzinfo=UTC)}, "expired on 2026-02-01"),
    "EUM: unknown critical extension": ("eum", {"extra_critical": True}, "critical extension 2.999.1"),
    "EUM: other EIN": ("eum", {"permitted": (("Test EUM", "89049033"),)}, "outside the range"),
    "EUM: other O in constraint": ("eum", {"permitted": (("Other", "89049032"),)}, "outside the range"),
    "EUM: constraint not critical": ("eum", {"constraints_critical": False}, "nameConstraints must be critical"),
    "EUM: excluded subtree": ("eum", {"excluded": True}, "nameConstraints must be critical and only permit"),
    "EUM: constraint without EIN": ("eum", {"permitted": (("Test EUM", None),)}, "organization and serialNumber"),
    "EUM: constraint no digits": ("eum", {"permitted": (("Test EUM", "8904X"),)}, "not made of digits"),
    "EUM: constraint of another kind": ("eum", {"permitted_dns": "eum.example"}, "other than a directory name"),
    "EUM: no constraint": ("eum", {"permitted": None}, "permits no EID range"),
    "EUM: other permittedEins": (
        "eum",
        {"permitted": None, "permitted_eins": pki.printable_strings("11111111")},
        "outside the range",
    ),
    "EUM: empty permittedEins": ("eum", {"permitted": None, "permitted_eins": b"\x30\x00"}, "permits no EID range"),
    "EUM: empty EIN": ("eum", {"permitted": None, "permitted_eins": b"\x30\x02\x13\x00"}, "not made of digits"),
    "EUM: torn permittedEins": ("eum", {"permitted": None, "permitted_eins": b"\x30\x03\x13\x05\x38"}, "SEQUENCE"),
    "EUM: permittedEins no sequence": ("eum", {"permitted": None, "permitted_eins": b"\x13\x01\x38"}, "SEQUENCE"),
    "EUM: permittedEins long": ("eum", {"permitted": None, "permitted_eins": b"\x30\x05\x13\x01\x38"}, "SEQUENCE"),
    # eUICC
    "eUICC: wrong policy": ("euicc", {"policies": (pki.POLICY_DPPB,)}, "not of this role"),
    "eUICC: keyUsage missing": ("euicc", {"key_usage_critical": None}, "no critical keyUsage"),
    "eUICC: may sign certificates": ("euicc", {"cert_sign": True}, "keyUsage"),
    "eUICC: may not sign": ("euicc", {"digital_signature": False}, "keyUsage"),
    "eUICC: claims to be a CA": ("euicc", {"ca": True}, "claims to be a CA"),
    "eUICC: no authority key": ("euicc", {"authority_key_id": False}, "authorityKeyIdentifier"),
    "eUICC: expired": ("euicc", {"not_after": datetime(2026, 2, 1, tzinfo=UTC)}, "expired on 2026-02-01"),
    "eUICC: not yet valid": ("euicc", {"not_before": datetime(2026, 4, 1, tzinfo=UTC)}, "not valid before 2026-04-01"),
    "eUICC: other EID": ("euicc", {"serial_number": OTHER_EID}, f"certificate of EID {OTHER_EID}"),
    "eUICC: no EID": ("euicc", {"serial_number": None}, "0 values of serialNumber"),
    "eUICC: other O": ("euicc", {"organization": "Other"}, "organization is not that of the EUM"),
    "eUICC: no O": ("euicc", {"organization": None}, "0 values of organizationName"),
    "eUICC: curve P-384": ("euicc", {"curve": ec.SECP384R1()}, "P-256 or brainpoolP256r1"),
    "eUICC: RSA key": ("euicc", {"curve": None}, "P-256 or brainpoolP256r1"),
    "eUICC: signed with SHA-384": ("euicc", {"digest": hashes.SHA384()}, "ecdsa-with-SHA256"),
    "eUICC: critical name constraint": ("euicc", {"permitted": (("Test EUM", "1"),)}, "critical extension 2.5.29.30"),
}


@pytest.mark.parametrize(("part", "change", "why"), BAD_EUICC_CHAINS.values(), ids=BAD_EUICC_CHAINS.keys())
def test_one_deviation_refuses_an_euicc_chain(part: str, change: dict[str, Any], why: str) -> None:
    recipes = {"root": ROOT, "eum": EUM, "euicc": EUICC}
    recipes[part] = replace(recipes[part], **change)
    members = euicc_chain(**recipes)
    with pytest.raises(VerificationError, match=why) as caught:
        verify_euicc(*members)
    assert caught.value.code == "TRUST.CHAIN"


BAD_DPPB = {
    "wrong policy": ({"policies": (pki.POLICY_EUICC,)}, "not of this role"),
    "no SAN": ({"san": None}, "0 registered IDs"),
    "SAN without an OID": ({"san": ()}, "0 registered IDs"),
    "two OIDs": ({"san": ("2.999.10", "2.999.12")}, "2 registered IDs"),
    "expired": ({"not_after": datetime(2026, 2, 1, tzinfo=UTC)}, "expired"),
    "a CA": ({"ca": True}, "claims to be a CA"),
    "curve P-521": ({"curve": ec.SECP521R1()}, "P-256 or brainpoolP256r1"),
}


@pytest.mark.parametrize(("change", "why"), BAD_DPPB.values(), ids=BAD_DPPB.keys())
def test_one_deviation_refuses_an_smdp_chain(change: dict[str, Any], why: str) -> None:
    verify_smdp()
    with pytest.raises(VerificationError, match=why) as caught:
        verify_smdp(dppb=replace(DPPB, **change))
    assert caught.value.code == "TRUST.CHAIN"


def test_the_time_passed_in_decides_also_for_a_chain_verified_before() -> None:
    ci = issue(ROOT)
    leaf = issue(replace(DPPB, not_after=datetime(2026, 6, 1, tzinfo=UTC)), ci)
    store = TrustStore([ci.der])
    store.smdp([leaf.der], AT)
    store.smdp([leaf.der], datetime(2026, 6, 1, tzinfo=UTC))
    with pytest.raises(VerificationError, match="expired on 2026-06-01"):
        store.smdp([leaf.der], datetime(2026, 6, 1, 0, 0, 1, tzinfo=UTC))


def test_an_eum_chain_is_verified_alone() -> None:
    ci = issue(ROOT)
    eum = issue(replace(EUM, not_after=datetime(2026, 6, 1, tzinfo=UTC)), ci)
    store = TrustStore([ci.der])
    store.check_eum([eum.der], AT)
    with pytest.raises(VerificationError, match="expired on 2026-06-01"):
        store.check_eum([eum.der], datetime(2026, 7, 1, tzinfo=UTC))
    with pytest.raises(VerificationError, match="keyUsage"):
        store.check_eum([issue(DPPB, ci).der], AT)


def test_a_foreign_root_is_refused() -> None:
    _, eum, euicc = euicc_chain()
    with pytest.raises(VerificationError, match="no trusted CI issued it"):
        TrustStore([issue(ROOT).der]).euicc(euicc.der, [eum.der], EID, AT)
    with pytest.raises(VerificationError, match="no trusted CI issued it"):
        TrustStore([]).euicc(euicc.der, [eum.der], EID, AT)


def test_a_certificate_signed_by_another_key_in_the_issuers_name_is_refused() -> None:
    ci, eum, _ = euicc_chain()
    forged = issue(EUICC, eum, signer=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(VerificationError, match=r"signature of CERT.EUM .* does not hold"):
        verify_euicc(ci, eum, forged)
    forged_eum = issue(EUM, ci, signer=ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(VerificationError, match=r"signature of CI root .* does not hold"):
        verify_euicc(ci, forged_eum, issue(EUICC, forged_eum))


def test_an_issuer_with_the_right_key_but_another_name_is_refused() -> None:
    ci, eum, _ = euicc_chain()
    renamed = Issued(eum.key, issue(replace(EUM, name="Renamed"), ci).certificate)
    with pytest.raises(VerificationError, match="issuer name"):
        verify_euicc(ci, eum, issue(EUICC, renamed))


def test_an_euicc_of_another_eum_of_the_same_ci_is_refused() -> None:
    ci, eum, _ = euicc_chain()
    other = issue(replace(EUM, name="Other EUM"), ci)
    with pytest.raises(VerificationError, match="authorityKeyIdentifier"):
        verify_euicc(ci, eum, issue(EUICC, other))


def test_a_root_signed_by_another_key_or_naming_another_issuer_is_refused() -> None:
    with pytest.raises(VerificationError, match="does not hold"):
        TrustStore([issue(ROOT, signer=ec.generate_private_key(ec.SECP256R1())).der])
    with pytest.raises(VerificationError, match="names another issuer"):
        TrustStore([issue(ROOT, issue(ROOT)).der])


def test_a_root_given_twice_is_refused_and_two_roots_serve() -> None:
    first, second = issue(ROOT), issue(ROOT)
    with pytest.raises(VerificationError, match="same key identifier"):
        TrustStore([first.der, first.der])
    store = TrustStore([first.der, second.der])
    assert len(store.root_key_ids) == 2
    assert store.smdp([issue(DPPB, second).der], AT).oid == pki.SMDP_OID


def sub_ca_chain(**change: Any) -> tuple[Issued, list[bytes]]:
    ci = issue(ROOT)
    middle = issue(replace(SUB_CA, **change), ci)
    return ci, chain(issue(DPPB, middle), middle)


def test_a_sub_ca_is_accepted_only_when_its_policy_is_configured() -> None:
    ci, members = sub_ca_chain()
    assert TrustStore([ci.der], SUB_CAS).smdp(members, AT).chain == tuple(members)
    with pytest.raises(VerificationError, match="not of this role"):
        TrustStore([ci.der]).smdp(members, AT)


def test_an_eum_below_a_sub_ca_obeys_every_constraint_above() -> None:
    ci = issue(ROOT)
    for prefix, holds in (("8904", True), ("8905", False)):
        middle = issue(replace(SUB_CA, path_length=1, permitted=(("Test EUM", prefix),)), ci)
        eum = issue(EUM, middle)
        store, members = TrustStore([ci.der], SUB_CAS), (issue(EUICC, eum).der, chain(eum, middle), EID, AT)
        if holds:
            assert store.euicc(*members).eid == EID
            continue
        with pytest.raises(VerificationError, match="outside the range"):
            store.euicc(*members)


def test_path_lengths_count_the_cas_below() -> None:
    ci = issue(replace(ROOT, path_length=0))
    verify_like = TrustStore([ci.der]).smdp([issue(DPPB, ci).der], AT)
    assert verify_like.oid == pki.SMDP_OID
    eum = issue(EUM, ci)
    with pytest.raises(VerificationError, match="path length"):
        verify_euicc(ci, eum, issue(EUICC, eum))
    middle = issue(SUB_CA, ci)
    with pytest.raises(VerificationError, match="path length"):
        TrustStore([ci.der], SUB_CAS).smdp(chain(issue(DPPB, middle), middle), AT)


def test_chain_lengths_are_bounded_and_the_root_is_not_a_member() -> None:
    ci, eum, euicc = euicc_chain()
    store = TrustStore([ci.der])
    with pytest.raises(VerificationError, match="a chain of 0"):
        store.euicc(euicc.der, [], EID, AT)
    with pytest.raises(VerificationError, match="a chain of 5"):
        store.smdp([eum.der] * 5, AT)
    with pytest.raises(VerificationError, match="not of this role"):
        store.euicc(euicc.der, chain(eum, ci), EID, AT)


def test_a_curve_named_by_its_parameters_is_no_key() -> None:
    ci, eum, euicc = euicc_chain()
    oid_of_p256 = bytes.fromhex("06082a8648ce3d030107")
    unknown = euicc.der.replace(oid_of_p256, bytes.fromhex("06082a8648ce3d030163"))
    with pytest.raises(VerificationError, match="public key cannot be read"):
        TrustStore([ci.der]).euicc(unknown, [eum.der], EID, AT)


@pytest.mark.parametrize("torn", [b"", b"\x30\x00", b"not a certificate"])
def test_bytes_that_are_no_certificate_are_refused(torn: bytes) -> None:
    ci, eum, euicc = euicc_chain()
    store = TrustStore([ci.der])
    for bad in (torn, euicc.der[:-1], euicc.der + b"\x00"):
        with pytest.raises(VerificationError, match="not a certificate"):
            store.euicc(bad, [eum.der], EID, AT)


def test_every_flipped_byte_of_a_certificate_is_refused() -> None:
    ci, eum, euicc = euicc_chain()
    store = TrustStore([ci.der])
    accepted = []
    for index in range(len(euicc.der)):
        flipped = bytearray(euicc.der)
        flipped[index] ^= 0x01
        with contextlib.suppress(VerificationError):
            store.euicc(bytes(flipped), [eum.der], EID, AT)
            accepted.append(index)
    assert accepted == []


def test_a_signature_with_unused_bits_is_refused_although_its_bytes_hold() -> None:
    ci, eum, euicc = euicc_chain()
    while euicc.certificate.signature[-1] & 1:
        euicc = issue(EUICC, eum)
    altered = bytearray(euicc.der)
    altered[-len(euicc.certificate.signature) - 1] = 1
    with pytest.raises(VerificationError, match="whole bytes"):
        TrustStore([ci.der]).euicc(bytes(altered), [eum.der], EID, AT)


@pytest.mark.parametrize(("version", "why"), [(0, "not a certificate|version 3"), (1, "not a valid X509 version")])
def test_an_older_x509_version_is_refused(version: int, why: str) -> None:
    ci, eum, euicc = euicc_chain()
    older = resign(euicc.certificate, eum, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01" + bytes([version]))
    with pytest.raises(VerificationError, match=why):
        TrustStore([ci.der]).euicc(older, [eum.der], EID, AT)


def resign(certificate: x509.Certificate, issuer: Issued, old: bytes, new: bytes) -> bytes:
    """Change bytes inside a certificate (same length) and sign it again."""
    assert isinstance(issuer.key, ec.EllipticCurvePrivateKey)
    tbs = certificate.tbs_certificate_bytes.replace(old, new, 1)
    signature = issuer.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    body = tbs + algorithm + bytes([0x03, len(signature) + 1, 0]) + signature
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def test_the_ci_a_chain_names_can_be_told_without_verifying_it() -> None:
    ci = issue(ROOT)
    leaf = issue(DPPB, ci)
    assert {ci_key_id((leaf.der,))} == TrustStore([ci.der]).root_key_ids
    middle = issue(SUB_CA, ci)
    assert ci_key_id((issue(DPPB, middle).der, middle.der)) == ci_key_id((leaf.der,))
    for bad in (b"", leaf.der[:-1], b"\x30\x00"):
        with pytest.raises(VerificationError, match=r"TRUST\.CHAIN"):
            ci_key_id((bad,))
