#include "backend/postgresql_schema.hpp"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <ctime>

#include "backend/postgresql_tables.hpp"

namespace isthmus::backend {
namespace {

/// The oldest PostgreSQL that publishes some columns and rows of a table only, as libpq counts versions.
constexpr int kOldestServer = 150000;
/// The shortest partition of the log: with many small ones each statement that reads the log opens them all.
constexpr std::chrono::seconds kNarrowestPartition{10};
/// So many partitions a retention takes, and so many are made ahead: enough for another session that holds a
/// lock on the log for a whole retention.
constexpr int kPartitionsOfRetention = 5;
constexpr int kPartitionsAhead = 5;

[[noreturn]] void refuse(const std::string& why) { throw OpenError(why); }

struct ServerFacts {
  std::string wal_level, role, database;
  std::int64_t max_slots, slots, max_senders, senders, permanent_slots;
  bool may_replicate, has_schema, may_create, owns_schema;
};

ServerFacts read_facts(PgConnection& connection) {
  // On Amazon RDS nobody has the attribute REPLICATION but the members of a role.
  const PgResult row = connection.exec(
      "SELECT current_setting('wal_level'), current_user, current_database(), "
      "current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots), "
      "current_setting('max_wal_senders'), (SELECT count(*) FROM pg_stat_replication), "
      "(SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'isthmus\\_%' AND NOT temporary "
      "AND database = current_database()), "
      "EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolreplication)) OR "
      "EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(oid, 'USAGE')), "
      "to_regnamespace('isthmus') IS NOT NULL, has_database_privilege(current_database(), 'CREATE'), "
      "EXISTS (SELECT FROM pg_namespace WHERE nspname = 'isthmus' AND pg_has_role(nspowner, 'USAGE'))");
  ServerFacts facts;
  facts.wal_level = row.string(0, 0);
  facts.role = row.string(0, 1);
  facts.database = row.string(0, 2);
  facts.max_slots = row.integer(0, 3);
  facts.slots = row.integer(0, 4);
  facts.max_senders = row.integer(0, 5);
  facts.senders = row.integer(0, 6);
  facts.permanent_slots = row.integer(0, 7);
  facts.may_replicate = row.boolean(0, 8);
  facts.has_schema = row.boolean(0, 9);
  facts.may_create = row.boolean(0, 10);
  facts.owns_schema = row.boolean(0, 11);
  return facts;
}

void check_rights(const ServerFacts& facts) {
  if (!facts.may_replicate) {
    refuse("the role " + facts.role + " may not replicate: ALTER ROLE " + facts.role + " REPLICATION");
  }
  if (!facts.has_schema && !facts.may_create) {
    refuse("the role " + facts.role + " may not create a schema: GRANT CREATE ON DATABASE " + facts.database +
           " TO " + facts.role);
  }
  if (facts.has_schema && !facts.owns_schema) {
    refuse("the schema isthmus belongs to another role: connect as its owner, or GRANT that role TO " +
           facts.role);
  }
}

void check_capacity(const ServerFacts& facts) {
  // One that stays, and a temporary copy of it for each server.
  const std::int64_t needed = facts.permanent_slots > 0 ? 1 : 2;
  if (facts.slots + needed > facts.max_slots) {
    refuse("no replication slot is free (" + std::to_string(facts.slots) +
           " of max_replication_slots = " + std::to_string(facts.max_slots) +
           "): raise max_replication_slots in postgresql.conf and restart PostgreSQL, or drop slots that "
           "nobody uses");
  }
  if (facts.senders + 1 > facts.max_senders) {
    refuse("no walsender is free (" + std::to_string(facts.senders) +
           " of max_wal_senders = " + std::to_string(facts.max_senders) +
           "): raise max_wal_senders in postgresql.conf and restart PostgreSQL");
  }
}

/// Brings the schema from `version` to ours, inside a transaction.
void migrate(PgConnection& connection, std::int64_t version) {
  if (version > kPostgresqlSchemaVersion) {
    refuse("the schema isthmus has the version " + std::to_string(version) +
           " of a newer Isthmus, and this one knows up to " + std::to_string(kPostgresqlSchemaVersion) +
           ": use the newer one");
  }
  if (version == kPostgresqlSchemaVersion) return;
  // Sessions that hold up the change of a table are waited for, but not for ever.
  connection.exec("SET LOCAL lock_timeout = '30s'");
  connection.exec(version == 0 ? postgresql_tables_sql() : postgresql_migration_sql(version));
  connection.exec(postgresql_sql_interface());
  connection.exec("INSERT INTO isthmus.schema_version (version) VALUES (" +
                  std::to_string(kPostgresqlSchemaVersion) + ")");
}

std::string partition_name(std::int64_t start_s) {
  const std::time_t start = start_s;
  std::tm utc{};
  gmtime_r(&start, &utc);
  char name[64];
  std::snprintf(name, sizeof name, "log_%04d%02d%02d_%02d%02d%02d", utc.tm_year + 1900, utc.tm_mon + 1,
                utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  return name;
}

/// One partition, from and to in seconds since the Unix epoch. Its own transaction, so that a lock is held
/// for a moment only. CREATE … PARTITION OF would wait behind every reader of the log, and have every COPY
/// wait. False if another session makes partitions now, or the lock was not to be had.
bool make_partition(PgConnection& connection, std::int64_t from_s, std::int64_t to_s) {
  const std::string table = "isthmus." + partition_name(from_s);
  const std::string from = "to_timestamp(" + std::to_string(from_s) + ")";
  const std::string to = "to_timestamp(" + std::to_string(to_s) + ")";
  connection.exec("BEGIN; SET LOCAL lock_timeout = '100ms'");
  try {
    bool made = false;
    if (connection.exec("SELECT pg_try_advisory_xact_lock(" + std::to_string(kPartitionLock) + ")")
            .boolean(0, 0) &&
        !connection
             .exec("SELECT EXISTS (SELECT FROM isthmus.log_default WHERE arrived >= " + from +
                   " AND arrived < " + to + "), to_regclass('" + table + "') IS NOT NULL")
             .boolean(0, 0)) {
      connection.exec("CREATE TABLE " + table + " (LIKE isthmus.log INCLUDING DEFAULTS INCLUDING STORAGE);" +
                      "ALTER TABLE isthmus.log ATTACH PARTITION " + table + " FOR VALUES FROM (" + from +
                      ") TO (" + to + ")");
      made = true;
    }
    connection.exec("COMMIT");
    return made;
  } catch (const PgError& error) {
    if (error.connection_lost) throw;
    connection.exec("ROLLBACK");
    // Not to be had now (lock_timeout), or another session was faster: the next round tries again.
    const bool harmless = error.sqlstate == "55P03" || error.sqlstate == "42P07" ||
                          error.sqlstate == "42P17" || error.sqlstate == "23514" || error.in_class("40");
    if (!harmless) throw;
    return false;
  }
}

}  // namespace

std::string index_part(std::string_view column) {
  const std::string name(column);
  return "CASE WHEN octet_length(" + name + ") <= 1024 THEN " + name + " ELSE substr(" + name +
         ", 1, 1000) || sha256(" + name + ") END";
}

std::string site_hex(SiteId site) {
  char digits[20];
  std::snprintf(digits, sizeof digits, "%" PRIx64, static_cast<std::uint64_t>(site));
  return digits;
}

std::string permanent_slot(SiteId site) { return "isthmus_" + site_hex(site); }

void check_server(PgConnection& connection) {
  if (connection.server_version() < kOldestServer) {
    refuse("PostgreSQL " + std::to_string(connection.server_version() / 10000) +
           " is too old: upgrade to version 15 or newer");
  }
  const ServerFacts facts = read_facts(connection);
  if (facts.wal_level != "logical") {
    refuse("wal_level is " + facts.wal_level +
           ": set wal_level = logical in postgresql.conf and restart PostgreSQL");
  }
  check_rights(facts);
  check_capacity(facts);
}

// The catalog is asked by queries: to_regclass() may answer from a cache that does not know yet what another
// session has just committed.
std::int64_t schema_version(PgConnection& connection) {
  const PgResult found = connection.exec(
      "SELECT count(*), count(c.oid) FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid "
      "AND c.relname = 'schema_version' WHERE n.nspname = 'isthmus'");
  if (found.integer(0, 1) > 0) {
    return connection.exec("SELECT max(version) FROM isthmus.schema_version").integer(0, 0);
  }
  if (found.integer(0, 0) == 0) return 0;
  refuse("the database has a schema named isthmus that is not ours: rename it, or name another database");
}

void create_schema(PgConnection& connection) {
  // The usual case takes no lock.
  if (schema_version(connection) == kPostgresqlSchemaVersion) return;
  connection.exec("BEGIN");
  try {
    connection.exec("SELECT pg_advisory_xact_lock(" + std::to_string(kSchemaLock) + ")");
    migrate(connection, schema_version(connection));
    connection.exec("COMMIT");
  } catch (const PgError& error) {
    if (!error.connection_lost) connection.exec("ROLLBACK");
    throw;
  } catch (...) {
    connection.exec("ROLLBACK");
    throw;
  }
}

std::chrono::seconds partition_width(std::chrono::seconds retention) {
  return std::max(retention / kPartitionsOfRetention, kNarrowestPartition);
}

int make_partitions(PgConnection& connection, std::chrono::seconds width) {
  const PgResult facts = connection.exec(
      "SELECT floor(extract(epoch FROM clock_timestamp()))::bigint, extract(epoch FROM max((regexp_match("
      "pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz))::bigint "
      "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'isthmus.log'::regclass");
  const std::int64_t now = facts.integer(0, 0);
  const std::int64_t step = width.count();
  // Behind the last one, or at a round time where that has passed.
  std::int64_t start = std::max(facts.integer(0, 1), now / step * step);
  int made = 0;
  while (start < now + kPartitionsAhead * step) {
    const std::int64_t end = (start / step + 1) * step;
    if (make_partition(connection, start, end)) ++made;
    start = end;
  }
  return made;
}

Partition current_partition(PgConnection& connection) {
  const PgResult found = connection.exec(
      "SELECT name, floor(extract(epoch FROM bounds[2]::timestamptz - clock_timestamp()) * 1000)::bigint "
      "FROM "
      "(SELECT c.oid::regclass::text AS name, regexp_match(pg_get_expr(c.relpartbound, c.oid), "
      "'FROM \\(''([^'']+)''\\) TO \\(''([^'']+)''\\)') AS bounds FROM pg_inherits i JOIN pg_class c ON "
      "c.oid = "
      "i.inhrelid WHERE i.inhparent = 'isthmus.log'::regclass) p "
      "WHERE clock_timestamp() >= bounds[1]::timestamptz AND clock_timestamp() < bounds[2]::timestamptz");
  if (found.rows() == 0) return {};
  return {found.string(0, 0), std::chrono::milliseconds(found.integer(0, 1))};
}

}  // namespace isthmus::backend
