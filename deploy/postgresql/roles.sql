-- Who may connect to the factory database. Run once as a superuser, in the database itself, with psql:
--     psql -d ifpp -v ON_ERROR_STOP=1 -f roles.sql
-- then `ifpp store migrate` as ifpp_owner, then grants.sql as ifpp_owner: it says what each role may do.
-- Passwords are not here: passwords.sql, or peer and certificate authentication of the site.

SELECT format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE', name)
FROM unnest(ARRAY['ifpp_owner', 'ifpp_store', 'ifpp_supervisor', 'ifpp_desk', 'ifpp_read']) AS name
WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name)
\gexec

-- ifpp_owner       owns every table: `ifpp store migrate`, `backup`, `restore`. No process that runs all day is this one.
-- ifpp_store       `ifpp store serve`
-- ifpp_supervisor  `ifpp supervisor run`
-- ifpp_desk        people's commands that write: imports, plans, reservations, rework, reports to the SM-DPf ...
-- ifpp_read        people's commands that only look: balance, kpi, shift reports, audit export; other tools
ALTER ROLE ifpp_store CONNECTION LIMIT 40;
ALTER ROLE ifpp_supervisor CONNECTION LIMIT 40;
ALTER ROLE ifpp_read SET default_transaction_read_only = on;
ALTER ROLE ifpp_read SET statement_timeout = '5min';

SELECT format(command, current_database())
FROM unnest(ARRAY[
    'ALTER DATABASE %I OWNER TO ifpp_owner',
    'REVOKE ALL ON DATABASE %I FROM PUBLIC',
    'GRANT CONNECT ON DATABASE %I TO ifpp_store, ifpp_supervisor, ifpp_desk, ifpp_read',
    'GRANT TEMPORARY ON DATABASE %I TO ifpp_desk' -- an import sorts out duplicates in one
]) AS command
\gexec

ALTER SCHEMA public OWNER TO ifpp_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO ifpp_store, ifpp_supervisor, ifpp_desk, ifpp_read;
