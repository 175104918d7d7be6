"""`ifpp quota`, and a production order that comes in the way every file does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ifpp.errors import IntakeError
from ifpp.roles import quota
from ifpp.roles.intake import import_files
from ifpp.sim.world import JobPlan, build_world
from ifpp.trust.signer import SoftwareSigner, create_key, write_public_key


def test_a_production_order_is_imported_like_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key, order, site = tmp_path / "planner.key", tmp_path / "PO-1.production-order.json", tmp_path / "site.toml"
    create_key(key)
    write_public_key(tmp_path / "planner.pub", SoftwareSigner.load(key).public)
    world = build_world(
        tmp_path / "world", units=1, seed=3, jobs=[JobPlan("JO-1", "P-100", "EU", ["st01"])], profile_kb=(4, 5)
    )
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "ci.der").write_bytes(world.ci.read_bytes())
    site.write_text('enterprise = "a"\nsite = "n"\narea = "h"\nline = "L1"\n[quota]\nkeys = { p = "planner.pub" }\n')
    quota.sign(order, "PO-1", 1, "a/n", "P-100", 7, ("", "2099-01-01T00:00:00Z"), key)
    capsys.readouterr()
    import_files(site, [order], dry_run=True)
    assert capsys.readouterr().out.startswith("VERIFIED")
    quota.show(site, as_json=False)
    assert capsys.readouterr().out.startswith("no production order")
    import_files(site, [order, order], dry_run=False)
    first, second = capsys.readouterr().out.splitlines()
    assert (first.split()[:4], second.split()[0]) == (["IMPORTED", "order", "7", "units"], "ALREADY_IMPORTED")
    quota.show(site, as_json=False)
    assert "0 of        7 sealed, 7 left, in force" in capsys.readouterr().out
    order.write_bytes(order.read_bytes().replace(b'"quantity": 7', b'"quantity": 9'))
    with pytest.raises(IntakeError, match=r"QUOTA\.SIGNATURE"):
        import_files(site, [order], dry_run=False)
