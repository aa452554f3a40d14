#!/usr/bin/env bash
# Makes the role and the database of a site, with the rights that a server needs and no more. The image of PostgreSQL runs it once.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$ISTHMUS_PASSWORD" -U postgres -d postgres <<'SQL'
CREATE ROLE isthmus LOGIN REPLICATION PASSWORD :'password' IN ROLE pg_create_subscription;
CREATE DATABASE isthmus OWNER isthmus;
SQL
