// The tables of an Isthmus database in SQLite.
#include "backend/sqlite_schema.hpp"

namespace isthmus::backend {
namespace {

// SQLite keeps the text of these statements with its comments, and `.schema` shows them to whoever opens the
// file. The log has no index beyond its position: rows are only ever read from the front, and an index would
// double the cost of a write. The wide column `value` comes last, so that reading the others never walks its
// overflow pages.
constexpr const char* kTables = R"sql(
CREATE TABLE log (            -- everything that happened and is not yet in the checkpoint, in the order of commit
  position   INTEGER PRIMARY KEY,
  arrived    INTEGER NOT NULL,  -- when it was written here: milliseconds since 1970
  site       INTEGER NOT NULL,  -- the site where it happened
  origin     INTEGER NOT NULL,  -- who numbered it: a lease, or a server process for messages
  seq        INTEGER NOT NULL,  -- 1, 2, 3 ... within its origin
  version    INTEGER NOT NULL,  -- milliseconds since 1970, times 65536, plus a counter; the highest one wins
  db         INTEGER NOT NULL,
  kind       TEXT NOT NULL,     -- set update hset hcreate hdel del expire flush publish spublish lease
  group_end  INTEGER NOT NULL,  -- 1: the last row of one command or one EXEC
  key        BLOB,              -- of a message: the channel
  field      BLOB,              -- of a hash
  expire_at  INTEGER,           -- deadline: milliseconds since 1970; NULL: none
  sent_at    INTEGER,           -- of a message
  value      BLOB
);

CREATE TABLE entry (          -- the checkpoint: one row a key, with the value of a string
  db              INTEGER NOT NULL,
  key             BLOB NOT NULL,
  type            TEXT NOT NULL,     -- string hash; none: a deleted key that must still be remembered
  version         INTEGER NOT NULL,
  site            INTEGER NOT NULL,
  cut_version     INTEGER NOT NULL,  -- what is older than this was deleted
  cut_site        INTEGER NOT NULL,
  expire_at       INTEGER,           -- deadline: milliseconds since 1970; NULL: none
  expire_version  INTEGER NOT NULL,
  expire_site     INTEGER NOT NULL,
  value           BLOB,
  PRIMARY KEY (db, key)
) WITHOUT ROWID;

CREATE TABLE field (          -- the checkpoint: the fields of the hashes
  db       INTEGER NOT NULL,
  key      BLOB NOT NULL,
  field    BLOB NOT NULL,
  version  INTEGER NOT NULL,
  site     INTEGER NOT NULL,
  deleted  INTEGER NOT NULL,    -- 1: a deleted field that must still be remembered
  value    BLOB,
  PRIMARY KEY (db, key, field)
) WITHOUT ROWID;

CREATE TABLE progress (       -- how far the checkpoint covers the log
  origin  INTEGER PRIMARY KEY,
  seq     INTEGER NOT NULL
);

CREATE TABLE site (           -- one row: this database
  id            INTEGER NOT NULL,
  born          INTEGER NOT NULL,  -- milliseconds since 1970
  cut_position  INTEGER NOT NULL   -- the highest position that was ever deleted from the log
);

CREATE TABLE schema_version (version INTEGER NOT NULL, since INTEGER NOT NULL);
)sql";

// Every statement about a key is one `fact`; of each register (the string, a field, the deletion, the
// deadline) the fact with the highest (version, site) wins; then a look at all winners of a key tells which
// of them show. `stamp` is (version, site) as text that sorts like the pair. Grouping with max() takes the
// other columns from the row of the maximum, which SQLite promises (https://www.sqlite.org/lang_select.html,
// "bare columns").
constexpr const char* kCurrentView = R"sql(
CREATE VIEW current AS        -- the state as of now: the checkpoint and the log behind it
WITH
  tail AS (
    SELECT log.*, printf('%016x%016x', log.version, log.site) AS stamp
    FROM log LEFT JOIN progress ON progress.origin = log.origin
    WHERE log.seq > coalesce(progress.seq, 0)
  ),
  flushed AS (SELECT db, max(stamp) AS stamp FROM tail WHERE kind = 'flush' GROUP BY db),
  fact AS (
    SELECT db, key, type AS what, NULL AS field, value, NULL AS expire_at, version, site,
           printf('%016x%016x', version, site) AS stamp
      FROM entry WHERE type <> 'none'
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, cut_version, cut_site, printf('%016x%016x', cut_version, cut_site)
      FROM entry WHERE cut_version > 0
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, expire_at, expire_version, expire_site,
           printf('%016x%016x', expire_version, expire_site)
      FROM entry WHERE expire_version > 0
    UNION ALL
    SELECT db, key, 'field', field, iif(deleted, NULL, value), NULL, version, site,
           printf('%016x%016x', version, site)
      FROM field
    UNION ALL
    SELECT db, key, 'string', NULL, coalesce(value, x''), NULL, version, site, stamp
      FROM tail WHERE kind IN ('set', 'update')
    UNION ALL
    SELECT db, key, 'field', field, iif(kind = 'hdel', NULL, coalesce(value, x'')), NULL, version, site, stamp
      FROM tail WHERE kind IN ('hset', 'hcreate', 'hdel')
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, version, site, stamp
      FROM tail WHERE kind IN ('set', 'del')
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, iif(kind IN ('set', 'expire'), expire_at, NULL), version, site, stamp
      FROM tail WHERE kind IN ('set', 'del', 'expire', 'hcreate')
  ),
  winner AS (
    SELECT db, key, what, field, value, expire_at, version, site, max(stamp) AS stamp
    FROM fact GROUP BY db, key, what, field
  ),
  judged AS (
    SELECT db, key, what, field, value, version, site, stamp,
           max(stamp) FILTER (WHERE what = 'cut') OVER same_key AS cut,
           max(stamp) FILTER (WHERE what = 'string') OVER same_key AS string_stamp,
           max(stamp) FILTER (WHERE what IN ('hash', 'field')) OVER same_key AS hash_stamp,
           max(stamp) FILTER (WHERE what = 'deadline') OVER same_key AS deadline_stamp,
           max(expire_at) FILTER (WHERE what = 'deadline') OVER same_key AS expire_at
    FROM winner WINDOW same_key AS (PARTITION BY db, key)
  ),
  alive AS (
    SELECT judged.db, key, what, field, value, version, site,
           iif(deadline_stamp >= max(coalesce(cut, ''), coalesce(flushed.stamp, '')), expire_at, NULL) AS expire_at
    FROM judged LEFT JOIN flushed ON flushed.db = judged.db
    WHERE what IN ('string', 'field') AND value IS NOT NULL
      AND judged.stamp >= max(coalesce(cut, ''), coalesce(flushed.stamp, ''))
      AND judged.stamp > coalesce(iif(what = 'string', hash_stamp, string_stamp), '')
  )
SELECT db, @key@ AS key, iif(what = 'field', 'hash', what) AS type, @field@ AS field, @value@ AS value,
       expire_at, version, site
FROM alive
WHERE expire_at IS NULL OR expire_at > CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER);
)sql";

/// An expression for a column that shows bytes as text where every character is one that people read: no zero
/// byte, and only tab, new lines, ASCII from the space on, and letters from U+00C0 on. What SQLite cannot
/// decode becomes U+FFFD or a character below U+00C0, so such bytes stay a BLOB.
std::string readable(const std::string& column) {
  return "iif(instr(" + column + ", x'00') OR CAST(" + column +
         " AS TEXT) GLOB '*[^' || char(9, 10, 13) || ' -~' || char(192) || '-' || char(0xD7FF, 0xE000) || "
         "'-' || "
         "char(0xFFFC, 0x10000) || '-' || char(0x10FFFF) || ']*', " +
         column + ", CAST(" + column + " AS TEXT))";
}

void replace_all(std::string& text, const std::string& what, const std::string& with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

}  // namespace

std::string schema_sql() {
  std::string view = kCurrentView;
  for (const char* column : {"key", "field", "value"}) {
    replace_all(view, "@" + std::string(column) + "@", readable(column));
  }
  return kTables + view + "PRAGMA application_id = " + std::to_string(kApplicationId) +
         ";\nPRAGMA user_version = " + std::to_string(kSchemaVersion) + ";\n";
}

}  // namespace isthmus::backend
