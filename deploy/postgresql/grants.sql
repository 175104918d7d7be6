-- What each role may do with each table: what its process does, and no more. Run as ifpp_owner, in the database, after
-- every `ifpp store migrate` (a new table is nobody's until then):
--     psql -d ifpp -v ON_ERROR_STOP=1 -f grants.sql
-- It may run while everything works, and again. Triggers keep history besides, also from the owner.
-- To lock a row PostgreSQL asks for the right to change some column of it: those lines say "lock".
BEGIN;
SET LOCAL client_min_messages = warning;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC, ifpp_store, ifpp_supervisor, ifpp_desk, ifpp_read;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM PUBLIC, ifpp_store, ifpp_supervisor, ifpp_desk, ifpp_read;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ifpp_store, ifpp_supervisor, ifpp_desk, ifpp_read;
-- Packages themselves are the store's business, and of those who bring them.
REVOKE SELECT ON package_bytes, staged FROM ifpp_supervisor, ifpp_read;
-- So is what spends an activation code; how many there are is everybody's.
REVOKE SELECT ON code FROM ifpp_supervisor, ifpp_read;
GRANT SELECT (code_id, batch, address, oid, sku, region, profile_type, expires_at, package_id, ties)
    ON code TO ifpp_supervisor, ifpp_read;

-- ---- all who write ------------------------------------------------------------------------------------

GRANT INSERT ON audit_entry TO ifpp_store, ifpp_supervisor, ifpp_desk;
GRANT INSERT, UPDATE (number, hash) ON audit_chain TO ifpp_store, ifpp_supervisor, ifpp_desk;
-- A package takes a step; the trigger that guards the step writes its ledger row with the same rights.
GRANT UPDATE (state, spent, revision, attempt_id, lease_until, changed_at, node_id, head_id, event_id, detail)
    ON package TO ifpp_store, ifpp_supervisor, ifpp_desk;
GRANT INSERT ON ledger TO ifpp_store, ifpp_supervisor, ifpp_desk;
GRANT USAGE ON SEQUENCE ledger_entry_seq TO ifpp_store, ifpp_supervisor, ifpp_desk;

-- An ifpp that was rolled back notes so ("behind"), a supervisor keeps what its successor must know (keys with a "/");
-- what the database says of itself is the owner's. No policy names a role: a backup can be restored where there is none.
GRANT INSERT, DELETE ON meta TO ifpp_store, ifpp_supervisor, ifpp_desk;
GRANT UPDATE (value) ON meta TO ifpp_supervisor;
ALTER TABLE meta ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS ifpp_reads ON meta;
DROP POLICY IF EXISTS ifpp_keeps ON meta;
CREATE POLICY ifpp_reads ON meta FOR SELECT USING (true);
CREATE POLICY ifpp_keeps ON meta USING (key = 'behind' OR key LIKE '%/%');

-- ---- ifpp store serve -----------------------------------------------------------------------------------

GRANT INSERT, UPDATE (released_at) ON claim TO ifpp_store;
GRANT INSERT ON reading TO ifpp_store;
GRANT USAGE ON SEQUENCE reading_number_seq TO ifpp_store;
GRANT UPDATE (clean_event_id) ON chip TO ifpp_store; -- lock
-- A claim makes a package of an activation code, and a chip of an EID that nobody delivered.
GRANT UPDATE (package_id, ties) ON code TO ifpp_store;
GRANT INSERT ON chip, otk, package, package_bytes TO ifpp_store;

-- ---- ifpp supervisor run --------------------------------------------------------------------------------

GRANT INSERT, UPDATE (owner, epoch, expires_at) ON line_lease TO ifpp_supervisor;
GRANT INSERT ON event, unit_attempt, package_result, removal, quota_unit, parked TO ifpp_supervisor;
GRANT INSERT, UPDATE (through) ON node_cursor TO ifpp_supervisor;
GRANT UPDATE (iccid) ON package TO ifpp_supervisor; -- of an activation code that is installed
GRANT UPDATE (clean_to_ship_at, clean_event_id) ON chip TO ifpp_supervisor;
GRANT UPDATE (taken_at) ON production_order TO ifpp_supervisor; -- lock
GRANT INSERT ON state_span, load_time, unit_again TO ifpp_supervisor;
GRANT INSERT, UPDATE (line) ON station_line TO ifpp_supervisor;
GRANT INSERT, UPDATE (standing, told_by, reason, changed_at, succeeded) ON fit TO ifpp_supervisor;
GRANT INSERT, UPDATE (revision, sha256, complete, at) ON kpi_revision TO ifpp_supervisor;
GRANT INSERT, UPDATE (result, code, text, answered_at) ON unasked TO ifpp_supervisor;
GRANT INSERT ON audit_key, audit_checkpoint TO ifpp_supervisor;
-- The MES: its commands become job orders, what it is told waits in the line's log.
GRANT INSERT ON batch, batch_total, order_word, line_log TO ifpp_supervisor;
GRANT INSERT, UPDATE (body) ON job_order TO ifpp_supervisor;
GRANT INSERT, UPDATE (responded_at) ON order_end TO ifpp_supervisor;
GRANT INSERT, UPDATE (seq) ON line_cursor TO ifpp_supervisor;
GRANT INSERT, UPDATE (through) ON line_ack TO ifpp_supervisor;
GRANT USAGE ON SEQUENCE parked_number_seq, batch_number_seq TO ifpp_supervisor;

-- ---- people at a desk -----------------------------------------------------------------------------------

-- Files that are taken in, or let go of again; and `ifpp store purge`, which empties bytes nobody needs.
GRANT INSERT, DELETE ON staged TO ifpp_desk;
GRANT INSERT, DELETE, UPDATE (bpp) ON package_bytes TO ifpp_desk;
GRANT INSERT ON batch, batch_total, batch_count, chain, info2, chip, otk, package, code TO ifpp_desk;
GRANT INSERT ON traveller, job_order, production_order TO ifpp_desk;
GRANT USAGE ON SEQUENCE batch_number_seq TO ifpp_desk;
GRANT UPDATE (clean_event_id) ON chip TO ifpp_desk; -- lock
GRANT UPDATE (body) ON job_order TO ifpp_desk; -- lock
GRANT UPDATE (taken_at) ON production_order TO ifpp_desk; -- lock
-- Decisions with a name and a reason.
GRANT INSERT ON profile_plan, withdrawal, rework_order, rework_package, job_release, chart_limits TO ifpp_desk;
GRANT INSERT, DELETE ON reservation TO ifpp_desk;
GRANT INSERT, UPDATE (standing, told_by, reason, changed_at) ON fit TO ifpp_desk;
-- Reports to the SM-DPf, and their answers; the MES is told.
GRANT INSERT ON report, report_item, report_signature, report_delivery, report_answer, report_verdict TO ifpp_desk;
GRANT INSERT ON report_ack, line_log, audit_key, audit_checkpoint TO ifpp_desk;
GRANT UPDATE (created_at) ON report TO ifpp_desk; -- lock
GRANT INSERT, UPDATE (revision, sha256, complete, at) ON kpi_revision TO ifpp_desk;

COMMIT;
