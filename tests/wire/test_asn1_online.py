"""The messages of an online session against rsp-online.asn, compiled by asn1tools: a third description of the bytes.

Both ends wrote them: the station's codec what goes to the chip, the simulated chip and SM-DP+ the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asn1tools
import pytest

from ifpp.model.rsp import Device
from ifpp.sim.euicc import Euicc
from ifpp.wire import rsp
from tests.sim.bench import Terminal
from tests.sim.test_online import CHIP, Session, b64, session
from tests.trust.test_rsp import INITIATED, OFFERED, PREPARED, PROOF, SAID, offer_of

ASN1 = asn1tools.compile_files(str(Path(__file__).with_name("rsp-online.asn")), "der")
CODE = rsp.hash_of_code("1234", SAID.server.transaction_id)


def told(request: bytes) -> bytes:
    """What a fresh chip answers."""
    card = Euicc(CHIP.card)
    card.reset()
    return Terminal(card).ask(request).raw


def cancelled() -> bytes:
    run: Session = session()
    offer = offer_of(run.offered())
    return run.terminal.ask(rsp.cancel_request(offer.transaction_id, 2)).raw


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("ServerSigned1", b64(INITIATED["serverSigned1"])),
        ("AuthenticateServerRequest", rsp.authenticate_request(SAID.server, "M-1", Device(bytes(4), bytes(8)))),
        ("AuthenticateServerRequest", rsp.authenticate_request(SAID.server, "", Device())),
        ("AuthenticateServerResponse", PROOF),
        ("AuthenticateServerResponse", told(rsp.authenticate_request(SAID.server, "M-1", Device()))),
        ("SmdpSigned2", b64(OFFERED["smdpSigned2"])),
        ("PrepareDownloadRequest", rsp.prepare_request(SAID.offer)),
        ("PrepareDownloadRequest", rsp.prepare_request(SAID.offer, CODE)),
        ("PrepareDownloadResponse", PREPARED.raw),
        ("PrepareDownloadResponse", told(rsp.prepare_request(SAID.offer))),
        ("CancelSessionRequest", rsp.cancel_request(b"\x01", 127)),
        ("CancelSessionResponse", cancelled()),
        ("CancelSessionResponse", told(rsp.cancel_request(b"\x01", 2))),
        ("EUICCInfo1", told(rsp.info1_request())),
        ("EuiccConfiguredAddressesResponse", told(rsp.addresses_request())),
        ("EuiccMemoryResetRequest", rsp.memory_reset_request()),
        ("EuiccMemoryResetResponse", told(rsp.memory_reset_request())),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_bytes_are_those_of_the_types(kind: str, raw: bytes) -> None:
    value = ASN1.decode(kind, raw)
    assert ASN1.encode(kind, value) == raw


def test_the_members_are_found_where_the_types_say() -> None:
    proof: Any = ASN1.decode("AuthenticateServerResponse", PROOF)
    assert proof[0] == "authenticateResponseOk"
    signed = proof[1]["euiccSigned1"]
    assert (signed["transactionId"], signed["serverChallenge"]) == (
        SAID.chip.transaction_id,
        SAID.chip.server_challenge,
    )
    assert signed["ctxParams1"][1]["matchingId"] == "M-1"
    assert (proof[1]["euiccCertificate"], proof[1]["eumCertificate"]) == (
        SAID.chip.euicc_certificate,
        SAID.chip.eum_chain[0],
    )
    prepared: Any = ASN1.decode("PrepareDownloadResponse", PREPARED.raw)
    assert prepared[1]["euiccSigned2"]["euiccOtpk"] == SAID.prepared.otk_public
    error: Any = ASN1.decode("AuthenticateServerResponse", told(rsp.authenticate_request(SAID.server, "M", Device())))
    assert error[1]["authenticateErrorCode"] == 4
