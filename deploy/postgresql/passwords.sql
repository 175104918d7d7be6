-- The roles' passwords, from files NAME.password in $IFPP_SECRETS (else /run/secrets), which only the one who runs psql
-- can read; again after each change of one. A password is never in this file, on a command line or in the environment.
\set owner `cat "${IFPP_SECRETS:-/run/secrets}/owner.password"`
\set store `cat "${IFPP_SECRETS:-/run/secrets}/store.password"`
\set supervisor `cat "${IFPP_SECRETS:-/run/secrets}/supervisor.password"`
\set desk `cat "${IFPP_SECRETS:-/run/secrets}/desk.password"`
\set read `cat "${IFPP_SECRETS:-/run/secrets}/read.password"`
SET log_statement = 'none';
SET password_encryption = 'scram-sha-256';
ALTER ROLE ifpp_owner PASSWORD :'owner';
ALTER ROLE ifpp_store PASSWORD :'store';
ALTER ROLE ifpp_supervisor PASSWORD :'supervisor';
ALTER ROLE ifpp_desk PASSWORD :'desk';
ALTER ROLE ifpp_read PASSWORD :'read';
