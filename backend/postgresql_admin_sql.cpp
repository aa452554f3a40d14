#include "backend/postgresql_admin_sql.hpp"

namespace isthmus::backend {
namespace {

constexpr std::string_view kAdminSql =
    R"sql(-- PostgreSQL 15 lets only superusers create subscriptions. With this function the role of Isthmus needs not be one: it
-- can make the subscriptions of Isthmus' links, and no others. A superuser runs this once in the database of each site,
-- and once more when that was restored from a dump:
--
--     isthmus --print-admin-sql | psql -v role=isthmus -d DATABASE
--
-- From PostgreSQL 16 on it is not needed: GRANT pg_create_subscription TO the role.
\set ON_ERROR_STOP on
BEGIN;
DO $$
BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
    RAISE EXCEPTION 'a superuser must run this' USING ERRCODE = 'insufficient_privilege';
  END IF;
END
$$;
CREATE SCHEMA IF NOT EXISTS isthmus_admin;

CREATE OR REPLACE FUNCTION isthmus_admin.create_subscription(name text, connection text, slot text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  caller_is_superuser boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = session_user);
BEGIN
  IF name !~ '^isthmus_link_[0-9a-f]+$' OR slot !~ '^isthmus_link_[0-9a-f]+_[0-9a-f]+$' THEN
    RAISE EXCEPTION 'only for the links of Isthmus' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  -- As PostgreSQL 16 asks of such roles: else the server would show its own identity to whatever it connects to.
  IF connection !~ '(^| )password=''.' THEN
    RAISE EXCEPTION 'the connection string of a peer must hold a password' USING ERRCODE = 'invalid_parameter_value';
  END IF;
  EXECUTE format('CREATE SUBSCRIPTION %I CONNECTION %L PUBLICATION isthmus_link WITH (slot_name = %L, create_slot = '
                 'false, copy_data = false, binary = true, streaming = on, synchronous_commit = on, enabled = true)',
                 name, connection, slot);
  -- Rows are applied with the rights of the owner, so that must be the role and not the superuser. PostgreSQL gives
  -- subscriptions to superusers only; the role is one between these statements, which no other session can see.
  IF NOT caller_is_superuser THEN
    EXECUTE format('ALTER ROLE %I SUPERUSER', session_user);
  END IF;
  EXECUTE format('ALTER SUBSCRIPTION %I OWNER TO %I', name, session_user);
  IF NOT caller_is_superuser THEN
    EXECUTE format('ALTER ROLE %I NOSUPERUSER', session_user);
  END IF;
END
$$;

-- The function does what its owner may. A restore by the role leaves both to the role, and neither CREATE changes that.
ALTER SCHEMA isthmus_admin OWNER TO CURRENT_USER;
ALTER FUNCTION isthmus_admin.create_subscription(text, text, text) OWNER TO CURRENT_USER;
REVOKE ALL ON FUNCTION isthmus_admin.create_subscription(text, text, text) FROM PUBLIC;
GRANT USAGE ON SCHEMA isthmus_admin TO :"role";
GRANT EXECUTE ON FUNCTION isthmus_admin.create_subscription(text, text, text) TO :"role";
COMMIT;
)sql";

}  // namespace

std::string_view postgresql_admin_sql() { return kAdminSql; }

}  // namespace isthmus::backend
