"""The test PKI against the certificate profiles of SGP.22 4.5 / SGP.26."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import NameOID

from ifpp.sim import pki

TREE = pki.Pki.create()
CHIP = pki.below(TREE.eum, pki.EUICC, pki.name_of("IFPP Sim EUM", "chip", "89049032123451234512345678901235"))


@pytest.mark.parametrize(
    ("holder", "issuer", "policy", "usage", "rid"),
    [
        (TREE.ci, TREE.ci, "2.23.146.1.2.1.0", {"key_cert_sign", "crl_sign"}, "2.999.1"),
        (TREE.eum, TREE.ci, "2.23.146.1.2.1.2", {"key_cert_sign"}, "2.999.5"),
        (CHIP, TREE.eum, "2.23.146.1.2.1.1", {"digital_signature"}, None),
        (TREE.dppb, TREE.ci, "2.23.146.1.2.1.5", {"digital_signature"}, "2.999.10"),
    ],
    ids=["ci", "eum", "euicc", "dppb"],
)
def test_profiles(holder: pki.Holder, issuer: pki.Holder, policy: str, usage: set[str], rid: str | None) -> None:
    certificate = holder.certificate
    certificate.verify_directly_issued_by(issuer.certificate)
    extensions = certificate.extensions
    key_usage = extensions.get_extension_for_class(x509.KeyUsage)
    policies = extensions.get_extension_for_class(x509.CertificatePolicies)
    assert key_usage.critical
    names = ("digital_signature", "content_commitment", "key_agreement", "key_cert_sign", "crl_sign")
    assert {name for name in names if getattr(key_usage.value, name)} == usage
    assert policies.critical
    assert [entry.policy_identifier.dotted_string for entry in policies.value] == [policy]
    if rid:
        names_found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.dotted_string for name in names_found.get_values_for_type(x509.RegisteredID)] == [rid]
    if holder is not issuer:
        authority = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert authority.key_identifier == issuer.pkid


def test_the_key_identifier_is_sha1_of_the_public_key_bits() -> None:
    digest = hashes.Hash(hashes.SHA1())  # noqa: S303 - an identifier (RFC 5280 4.2.1.2), not a protection
    digest.update(pki.point(TREE.ci.key.public_key()))
    assert TREE.ci.pkid == digest.finalize()


def test_the_eum_may_issue_only_its_own_eids_and_no_further_ca() -> None:
    extensions = TREE.eum.certificate.extensions
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    names = extensions.get_extension_for_class(x509.NameConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert names.critical
    assert names.value.permitted_subtrees is not None
    (permitted,) = names.value.permitted_subtrees
    assert isinstance(permitted, x509.DirectoryName)
    assert [(attribute.oid, attribute.value) for attribute in permitted.value] == [
        (NameOID.ORGANIZATION_NAME, pki.organisation_of(TREE.eum.certificate)),
        (NameOID.SERIAL_NUMBER, "89049032"),
    ]


def test_two_trees_do_not_trust_each_other() -> None:
    foreign = pki.Pki.create()
    with pytest.raises(InvalidSignature):
        TREE.dppb.certificate.verify_directly_issued_by(foreign.ci.certificate)


def test_a_bad_certificate_is_a_changed_profile() -> None:
    wrong_role = pki.below(TREE.ci, replace(pki.DPPB, policy=pki.POLICY_EUICC), pki.name_of("X", "wrong role"))
    (policy,) = wrong_role.certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert policy.policy_identifier.dotted_string == pki.POLICY_EUICC


def test_raw_signatures_are_r_and_s() -> None:
    signature = pki.sign_raw(TREE.ci.key, b"text")
    assert len(signature) == 64
    der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
    TREE.ci.key.public_key().verify(der, b"text", ec.ECDSA(hashes.SHA256()))
    assert pki.sign_raw(TREE.ci.key, b"text") != signature
    once, twice = (pki.sign_raw(TREE.ci.key, b"text", deterministic=True) for _ in range(2))
    assert once == twice


def test_no_key_in_a_repr() -> None:
    assert repr(TREE.eum) == "Holder(CN=EUM,O=IFPP Sim EUM)"
