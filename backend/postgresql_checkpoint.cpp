#include "backend/postgresql_checkpoint.hpp"

#include <array>
#include <map>

#include "backend/postgresql_copy.hpp"
#include "backend/postgresql_schema.hpp"

namespace isthmus::backend {
namespace {

/// A statement takes at most so many bytes of values, far below what one message to PostgreSQL may have (1
/// GiB).
constexpr std::size_t kStatementBytes = 16U << 20U;
/// And at most so many rows: it must be over long before the session counts as lost for its silence.
constexpr std::size_t kStatementRows = 10'000;
bool fills_statement(std::size_t rows, std::size_t bytes) {
  return rows >= kStatementRows || bytes >= kStatementBytes;
}
/// A flush looks at so many keys or fields in one transaction.
constexpr int kFlushRows = 2000;
/// A row of the log can be older than its commit by as long as its transaction took, and a vector older than
/// what was committed by as long as the feed lags. Rows that arrived in so many seconds before the vector
/// count as not covered.
constexpr int kCoverMarginSeconds = 60;

/// In the order of StoredType.
constexpr std::array<std::string_view, 4> kTypeNames = {"none", "string", "hash", "set"};

std::int64_t signed_number(std::uint64_t number) { return static_cast<std::int64_t>(number); }

/// A string that was set and later deleted: the deletion is what remains.
bool is_dead_string(const StoredKey& key) {
  return key.type == StoredType::string &&
         std::pair(key.version, key.site) < std::pair(key.cut_version, key.cut_site);
}

/// Keys on their way into one statement, column by column.
struct KeyArrays {
  PgArray db{PgType::int2}, key{PgType::bytea}, type{PgType::text}, version{PgType::int8}, site{PgType::int8},
      cut_version{PgType::int8}, cut_site{PgType::int8}, expire_at{PgType::int8},
      expire_version{PgType::int8}, expire_site{PgType::int8}, value{PgType::bytea}, totals{PgType::text};

  void add(const StoredKey& stored) {
    const StoredType kind = is_dead_string(stored) ? StoredType::none : stored.type;
    db.add(std::int64_t{stored.db});
    key.add(std::string_view(stored.key));
    type.add(kTypeNames.at(static_cast<std::size_t>(kind)));
    version.add(signed_number(stored.version));
    site.add(stored.site);
    cut_version.add(signed_number(stored.cut_version));
    cut_site.add(stored.cut_site);
    if (stored.expire_at) {
      expire_at.add(*stored.expire_at);
    } else {
      expire_at.add_null();
    }
    expire_version.add(signed_number(stored.expire_version));
    expire_site.add(stored.expire_site);
    const bool counted = kind == StoredType::string && !stored.totals.empty();
    // The base of a counter may be nothing.
    if (kind == StoredType::string && !(counted && stored.value.empty())) {
      value.add(std::string_view(stored.value));
    } else {
      value.add_null();
    }
    if (counted) {
      totals.add(std::string_view(stored.totals));
    } else {
      totals.add_null();
    }
  }
  bool full() const { return fills_statement(key.size(), key.bytes() + value.bytes() + totals.bytes()); }
};

struct FieldArrays {
  PgArray db{PgType::int2}, key{PgType::bytea}, field{PgType::bytea}, version{PgType::int8},
      site{PgType::int8}, deleted{PgType::boolean}, value{PgType::bytea}, totals{PgType::text};

  void add(const StoredField& stored) {
    db.add(std::int64_t{stored.db});
    key.add(std::string_view(stored.key));
    field.add(std::string_view(stored.field));
    version.add(signed_number(stored.version));
    site.add(stored.site);
    deleted.add(std::int64_t{stored.deleted});
    const bool counted = !stored.totals.empty();
    if (stored.deleted || (counted && stored.value.empty())) {
      value.add_null();
    } else {
      value.add(std::string_view(stored.value));
    }
    if (counted) {
      totals.add(std::string_view(stored.totals));
    } else {
      totals.add_null();
    }
  }
  bool full() const {
    return fills_statement(key.size(), key.bytes() + field.bytes() + value.bytes() + totals.bytes());
  }
};

// Merges with what is there: `v`, `c` and `x` are the value, the cut and the deadline that stay. A stored
// value older than a cut gives way to any. Rows that are as they should be are left alone, so that a piece
// written twice leaves nothing to vacuum.
const std::string& upsert_keys_sql() {
  static const std::string sql =
      "INSERT INTO isthmus.entry AS e (db, key, type, version, site, cut_version, cut_site, expire_at, "
      "expire_version, "
      "expire_site, value, totals) SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) "
      "ON CONFLICT (db, (" +
      index_part("key") +
      ")) DO UPDATE SET (type, version, site, value, totals, cut_version, cut_site, expire_at, "
      "expire_version, "
      "expire_site) = ("
      "SELECT CASE WHEN v.dead THEN 'none' ELSE v.type END, v.version, v.site, CASE WHEN NOT v.dead THEN "
      "v.value END, CASE WHEN NOT v.dead THEN v.totals END, "
      "v.cut_version, v.cut_site, "
      "CASE WHEN v.old_deadline THEN e.expire_at ELSE excluded.expire_at END, "
      "CASE WHEN v.old_deadline THEN e.expire_version ELSE excluded.expire_version END, "
      "CASE WHEN v.old_deadline THEN e.expire_site ELSE excluded.expire_site END "
      "FROM (SELECT w.*, w.type = 'string' AND (w.version, w.site) < (w.cut_version, w.cut_site) AS dead "
      "FROM ("
      "SELECT CASE WHEN k.old_value THEN e.type ELSE excluded.type END AS type, "
      "CASE WHEN k.old_value THEN e.version ELSE excluded.version END AS version, "
      "CASE WHEN k.old_value THEN e.site ELSE excluded.site END AS site, "
      "CASE WHEN k.old_value THEN e.value ELSE excluded.value END AS value, "
      "CASE WHEN k.old_value THEN e.totals ELSE excluded.totals END AS totals, "
      "CASE WHEN k.old_cut THEN e.cut_version ELSE excluded.cut_version END AS cut_version, "
      "CASE WHEN k.old_cut THEN e.cut_site ELSE excluded.cut_site END AS cut_site, k.old_deadline "
      "FROM (SELECT excluded.version <> 0 AND (e.version, e.site) > (excluded.version, excluded.site) "
      "AND (e.version, e.site) >= (e.cut_version, e.cut_site) "
      "AND (e.version, e.site) >= (excluded.cut_version, excluded.cut_site) AS old_value, "
      "(e.cut_version, e.cut_site) > (excluded.cut_version, excluded.cut_site) AS old_cut, "
      "excluded.expire_version <> 0 AND "
      "(e.expire_version, e.expire_site) > (excluded.expire_version, excluded.expire_site) AS old_deadline) "
      "k) w) v) "
      "WHERE (e.version, e.site, e.cut_version, e.cut_site, e.expire_version, e.expire_site, e.expire_at, "
      "e.type, "
      "e.value, e.totals) IS DISTINCT FROM (excluded.version, excluded.site, excluded.cut_version, "
      "excluded.cut_site, excluded.expire_version, excluded.expire_site, excluded.expire_at, excluded.type, "
      "excluded.value, excluded.totals)";
  return sql;
}

const std::string& upsert_fields_sql() {
  static const std::string sql =
      "INSERT INTO isthmus.field AS e (db, key, field, version, site, deleted, value, totals) "
      "SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (db, (" +
      index_part("key") + "), (" + index_part("field") +
      ")) DO UPDATE SET version = excluded.version, site = excluded.site, deleted = excluded.deleted, "
      "value = excluded.value, totals = excluded.totals "
      "WHERE (excluded.version, excluded.site) >= (e.version, e.site) "
      "AND (e.version, e.site, e.deleted, e.value, e.totals) IS DISTINCT FROM "
      "(excluded.version, excluded.site, excluded.deleted, excluded.value, excluded.totals)";
  return sql;
}

/// The condition that a row of `table` (under the name e) is one of the unnested `k`.
std::string same_key() { return "e.db = k.db AND " + index_part("e.key") + " = " + index_part("k.key"); }

void put_keys(PgConnection& connection, KeyArrays& arrays) {
  if (arrays.key.size() == 0) return;
  PgParams params;
  for (PgArray* array : {&arrays.db, &arrays.key, &arrays.type, &arrays.version, &arrays.site,
                         &arrays.cut_version, &arrays.cut_site, &arrays.expire_at, &arrays.expire_version,
                         &arrays.expire_site, &arrays.value, &arrays.totals}) {
    params.add(*array);
  }
  connection.exec(upsert_keys_sql(), params);
  arrays = {};
}

void put_fields(PgConnection& connection, FieldArrays& arrays) {
  if (arrays.key.size() == 0) return;
  PgParams params;
  for (PgArray* array : {&arrays.db, &arrays.key, &arrays.field, &arrays.version, &arrays.site,
                         &arrays.deleted, &arrays.value, &arrays.totals}) {
    params.add(*array);
  }
  connection.exec(upsert_fields_sql(), params);
  arrays = {};
}

/// Deletes fields of these keys, as many as one statement should; false if some may be left.
bool delete_first_fields(PgConnection& connection, PgArray& db, PgArray& key) {
  static const std::string sql =
      "DELETE FROM isthmus.field WHERE ctid = ANY (ARRAY(SELECT e.ctid FROM isthmus.field e, "
      "unnest($1, $2) AS k (db, key) WHERE " +
      same_key() + " LIMIT " + std::to_string(kStatementRows) + "))";
  return connection.exec(sql, PgParams().add(db).add(key)).affected() < kStatementRows;
}

/// Deletes all fields of one key, piece by piece in the order of the index: so no statement walks over what
/// those before it have deleted, which counts with a set of millions.
void delete_all_fields(PgConnection& connection, const StoredKey& stored) {
  const std::string at = index_part("field");
  const std::string rest = " FROM isthmus.field WHERE db = $1 AND " + index_part("key") + " = " +
                           index_part("$2") + " AND " + at + " >= $3";
  const std::string look = "SELECT " + at + rest + " ORDER BY db, " + index_part("key") + ", 1 OFFSET " +
                           std::to_string(kStatementRows) + " LIMIT 1";
  std::string from;
  for (bool more = true; more;) {
    PgParams params;
    params.add(stored.db).add_bytes(stored.key).add_bytes(from);
    const PgResult next = connection.exec(look, params);
    more = next.rows() > 0;
    if (more) {
      from = next.string(0, 0);
      params.add_bytes(from);
    }
    connection.exec("DELETE" + rest + (more ? " AND " + at + " < $4" : ""), params);
  }
}

/// Deletes keys from entry if they are to be forgotten, and fields of those and of keys whose fields are
/// replaced.
void delete_keys(PgConnection& connection, const CheckpointChunk& chunk) {
  PgArray gone_db(PgType::int2), gone_key(PgType::bytea), db(PgType::int2), key(PgType::bytea);
  for (const StoredKey& stored : chunk.keys) {
    if (!stored.forget && !stored.replace_fields) continue;
    db.add(std::int64_t{stored.db});
    key.add(std::string_view(stored.key));
    if (!stored.forget) continue;
    gone_db.add(std::int64_t{stored.db});
    gone_key.add(std::string_view(stored.key));
  }
  if (db.size() != 0 && !delete_first_fields(connection, db, key)) {
    // With it PostgreSQL might gather and sort all fields that are left, for each look anew.
    connection.exec("SET LOCAL enable_bitmapscan = off");
    for (const StoredKey& stored : chunk.keys) {
      if (stored.forget || stored.replace_fields) delete_all_fields(connection, stored);
    }
  }
  if (gone_db.size() != 0) {
    connection.exec("DELETE FROM isthmus.entry e USING unnest($1, $2) AS k (db, key) WHERE " + same_key(),
                    PgParams().add(gone_db).add(gone_key));
  }
}

void delete_fields(PgConnection& connection, const CheckpointChunk& chunk) {
  PgArray db(PgType::int2), key(PgType::bytea), field(PgType::bytea);
  const auto delete_gathered = [&] {
    if (db.size() == 0) return;
    connection.exec("DELETE FROM isthmus.field e USING unnest($1, $2, $3) AS k (db, key, field) WHERE " +
                        same_key() + " AND " + index_part("e.field") + " = " + index_part("k.field"),
                    PgParams().add(db).add(key).add(field));
    for (PgArray* array : {&db, &key, &field}) array->clear();
  };
  for (const StoredField& stored : chunk.fields) {
    if (!stored.forget) continue;
    db.add(std::int64_t{stored.db});
    key.add(std::string_view(stored.key));
    field.add(std::string_view(stored.field));
    if (fills_statement(db.size(), key.bytes() + field.bytes())) delete_gathered();
  }
  delete_gathered();
}

bool flush_fields(PgConnection& connection, FlushProgress& progress) {
  const std::string at = "(" + index_part("key") + ", " + index_part("field") + ")";
  const PgResult next = connection.exec(
      "SELECT " + index_part("key") + ", " + index_part("field") + " FROM isthmus.field WHERE db = $1 AND " +
          at + " >= ($2, $3) ORDER BY db, 1, 2 OFFSET " + std::to_string(kFlushRows) + " LIMIT 1",
      PgParams().add(progress.db).add_bytes(progress.key).add_bytes(progress.field));
  PgParams params;
  params.add(progress.db).add_bytes(progress.key).add_bytes(progress.field);
  params.add(signed_number(progress.version)).add(progress.site);
  std::string sql = "DELETE FROM isthmus.field WHERE db = $1 AND " + at +
                    " >= ($2, $3) AND (version, site) <= ($4::bigint, $5::bigint)";
  const bool more = next.rows() > 0;
  if (more) {
    sql += " AND " + at + " < ($6, $7)";
    params.add_bytes(next.bytes(0, 0)).add_bytes(next.bytes(0, 1));
  }
  connection.exec(sql, params);
  progress.key = more ? next.string(0, 0) : "";
  progress.field = more ? next.string(0, 1) : "";
  return more;
}

bool flush_keys(PgConnection& connection, FlushProgress& progress) {
  const std::string at = index_part("key");
  const PgResult next =
      connection.exec("SELECT " + at + " FROM isthmus.entry WHERE db = $1 AND " + at +
                          " >= $2 ORDER BY db, 1 OFFSET " + std::to_string(kFlushRows) + " LIMIT 1",
                      PgParams().add(progress.db).add_bytes(progress.key));
  PgParams params;
  params.add(progress.db).add_bytes(progress.key).add(signed_number(progress.version)).add(progress.site);
  std::string sql = "DELETE FROM isthmus.entry WHERE db = $1 AND " + at +
                    " >= $2 AND (version, site) <= ($3, $4) " +
                    "AND (cut_version, cut_site) <= ($3, $4) AND (expire_version, expire_site) <= ($3, $4)";
  const bool more = next.rows() > 0;
  if (more) {
    sql += " AND " + at + " < $5";
    params.add_bytes(next.bytes(0, 0));
  }
  connection.exec(sql, params);
  progress.key = more ? next.string(0, 0) : "";
  return more;
}

void put_flushes(PgConnection& connection, const std::vector<StoredFlush>& flushes) {
  PgArray dbs(PgType::int2), versions(PgType::int8), sites(PgType::int8);
  for (const StoredFlush& flush : flushes) {
    dbs.add(std::int64_t{flush.db});
    versions.add(signed_number(flush.version));
    sites.add(flush.site);
  }
  connection.exec("DELETE FROM isthmus.flush WHERE NOT db = ANY ($1)", PgParams().add(dbs));
  connection.exec(
      "INSERT INTO isthmus.flush AS f (db, version, site) SELECT * FROM unnest($1, $2, $3) ON CONFLICT (db) "
      "DO UPDATE SET version = excluded.version, site = excluded.site "
      "WHERE (f.version, f.site) IS DISTINCT FROM (excluded.version, excluded.site)",
      PgParams().add(dbs).add(versions).add(sites));
}

void put_frontiers(PgConnection& connection, const std::vector<StoredFrontier>& frontiers) {
  if (frontiers.empty()) return;
  PgArray sites(PgType::int8), of(PgType::int8), versions(PgType::int8);
  for (const StoredFrontier& frontier : frontiers) {
    sites.add(frontier.site);
    of.add(frontier.of);
    versions.add(signed_number(frontier.version));
  }
  connection.exec(
      "INSERT INTO isthmus.frontier AS f (site, of_site, version) SELECT * FROM unnest($1, $2, $3) ON "
      "CONFLICT (site, of_site) DO UPDATE SET version = excluded.version WHERE excluded.version > f.version",
      PgParams().add(sites).add(of).add(versions));
}

}  // namespace

void write_under_lease(PgConnection& connection, OriginId lease, const std::function<void()>& body) {
  try {
    // KEY SHARE holds up whoever takes the lease, which changes the id, but not the holder's beat. The
    // settings have the few keys of a piece looked up in the index, whatever the statistics of the tables
    // say.
    const PgResult current = connection.exec(
        "BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin "
        "= off; "
        "SELECT id FROM isthmus.lease FOR KEY SHARE");
    if (current.rows() != 1 || current.integer(0, 0) != lease) {
      throw LeaseChanged("another server has taken the lease: the checkpoint is its business now");
    }
    body();
    connection.exec("COMMIT");
  } catch (const PgError& error) {
    if (!error.connection_lost) connection.exec("ROLLBACK");
    throw;
  } catch (...) {
    connection.exec("ROLLBACK");
    throw;
  }
}

void put_chunk(PgConnection& connection, const CheckpointChunk& chunk) {
  delete_keys(connection, chunk);
  KeyArrays keys;
  for (const StoredKey& stored : chunk.keys) {
    if (!stored.forget) keys.add(stored);
    if (keys.full()) put_keys(connection, keys);
  }
  put_keys(connection, keys);
  delete_fields(connection, chunk);
  FieldArrays fields;
  for (const StoredField& stored : chunk.fields) {
    if (!stored.forget) fields.add(stored);
    if (fields.full()) put_fields(connection, fields);
  }
  put_fields(connection, fields);
}

bool forget_some_flushed(PgConnection& connection, FlushProgress& progress) {
  if (progress.fields_done) return flush_keys(connection, progress);
  if (!flush_fields(connection, progress)) progress.fields_done = true;
  return true;
}

std::map<OriginId, SiteId> find_sites(PgConnection& connection, const Vector& vector) {
  std::map<OriginId, SiteId> unknown;
  for (const auto& [origin, seq] : vector) unknown.emplace(origin, 0);
  const PgResult known = connection.exec("SELECT origin FROM isthmus.progress WHERE site IS NOT NULL");
  for (int i = 0; i < known.rows(); ++i) unknown.erase(known.integer(i, 0));
  if (unknown.empty()) return unknown;
  const PgResult found = connection.exec(
      "SELECT origin, max(site) FILTER (WHERE NOT copied) FROM isthmus.log "
      "WHERE arrived >= (SELECT "
      "covered_from FROM isthmus.site) GROUP BY origin UNION ALL "
      "SELECT split_part(part, '=', 1)::bigint, site FROM isthmus.log, "
      "regexp_split_to_table(convert_from(value, 'UTF8'), ' +') AS part WHERE kind = 'reach' AND arrived >= "
      "(SELECT covered_from FROM isthmus.site) AND part ~ '^[0-9]+='");
  for (int i = 0; i < found.rows(); ++i) {
    const auto origin = unknown.find(found.integer(i, 0));
    if (origin != unknown.end() && origin->second == 0) origin->second = found.integer(i, 1);
  }
  return unknown;
}

void put_mark(PgConnection& connection, const CheckpointMark& mark,
              const std::map<OriginId, SiteId>& sites_of) {
  PgArray origins(PgType::int8), seqs(PgType::int8), sites(PgType::int8);
  for (const auto& [origin, seq] : mark.vector) {
    origins.add(origin);
    seqs.add(signed_number(seq));
    const auto site = sites_of.find(origin);
    if (site == sites_of.end()) {
      sites.add_null();
    } else {
      sites.add(site->second);
    }
  }
  connection.exec(
      "INSERT INTO isthmus.progress AS p (origin, seq, site) SELECT * FROM unnest($1, $2, $3) ON CONFLICT "
      "(origin) DO UPDATE SET seq = excluded.seq, site = coalesce(nullif(p.site, 0), excluded.site), "
      "updated_at = now() "
      "WHERE excluded.seq > p.seq",
      PgParams().add(origins).add(seqs).add(sites));
  put_flushes(connection, mark.flushes);
  put_frontiers(connection, mark.frontiers);
  const auto age = duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - mark.taken);
  connection.exec("UPDATE isthmus.site SET covered_from = clock_timestamp() - make_interval(secs => " +
                  std::to_string(kCoverMarginSeconds + age.count() + 1) + ")");
}

void read_uncovered_rows(PgConnection& connection, LoadSink& sink) {
  // Room to sort some 100,000 rows of the log in memory.
  connection.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL work_mem = '64MB'");
  try {
    const PgResult progress = connection.exec("SELECT origin, seq, site FROM isthmus.progress", PgParams());
    for (int i = 0; i < progress.rows(); ++i) {
      sink.covered(progress.integer(i, 0), static_cast<Seq>(progress.integer(i, 1)), progress.integer(i, 2));
    }
    CopyReader copy(
        connection,
        "COPY (SELECT " + select_log_columns("NULL::bytea") +
            " FROM isthmus.log l LEFT JOIN isthmus.progress p ON p.origin = l.origin "
            "WHERE l.arrived >= (SELECT covered_from FROM isthmus.site) AND l.seq > coalesce(p.seq, 0) "
            "ORDER BY l.origin, l.seq) TO STDOUT (FORMAT binary)");
    read_log_rows(copy, [&](const Row& row) { sink.row(row); });
    connection.exec("COMMIT");
  } catch (const PgError& error) {
    if (!error.connection_lost) connection.exec("ROLLBACK");
    throw;
  }
}

}  // namespace isthmus::backend
