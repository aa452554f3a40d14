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
  kind       TEXT NOT NULL,     -- set update hset hcreate hdel sadd screate srem del expire flush publish spublish lease
  group_end  INTEGER NOT NULL,  -- 1: the last row of one command or one EXEC
  key        BLOB,              -- of a message: the channel
  field      BLOB,              -- of a hash; of a set: the member
  expire_at  INTEGER,           -- deadline: milliseconds since 1970; NULL: none
  sent_at    INTEGER,           -- of a message
  value      BLOB
);

CREATE TABLE entry (          -- the checkpoint: one row a key, with the value of a string
  db              INTEGER NOT NULL,
  key             BLOB NOT NULL,
  type            TEXT NOT NULL,     -- string hash set; none: a deleted key that must still be remembered
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

CREATE TABLE field (          -- the checkpoint: the fields of the hashes and the members of the sets
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

// Most keys are only in the checkpoint and are shown as they are there: `settled`. For a key that the log
// behind it touches, every statement about it is one `fact`; of each register (the string, a field, the
// deletion, the deadline) the fact with the highest (version, site) wins; then a look at all winners of the
// key tells which of them show. `stamp` is (version, site) as text that sorts like the pair. Grouping with
// max() takes the other columns from the row of the maximum, which SQLite promises
// (https://www.sqlite.org/lang_select.html, "bare columns").
constexpr const char* kCurrentView = R"sql(
CREATE VIEW current AS        -- the state as of now: the checkpoint and the log behind it
WITH
  tail AS (
    SELECT log.*, printf('%016x%016x', log.version, log.site) AS stamp
    FROM log LEFT JOIN progress ON progress.origin = log.origin
    WHERE log.seq > coalesce(progress.seq, 0)
  ),
  flushed AS (SELECT db, version, site, max(stamp) AS stamp FROM tail WHERE kind = 'flush' GROUP BY db),
  touched AS (
    SELECT DISTINCT db, key FROM tail
    WHERE kind IN ('set', 'update', 'hset', 'hcreate', 'hdel', 'sadd', 'screate', 'srem', 'del', 'expire')
      AND key IS NOT NULL
  ),
  settled AS (
    SELECT e.db, e.key, 'string' AS type, NULL AS field, e.value, e.version, e.site,
           iif((e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
               AND (e.expire_version, e.expire_site) >= (ifnull(f.version, 0), ifnull(f.site, 0)), expire_at, NULL)
             AS expire_at
      FROM entry e LEFT JOIN flushed f ON f.db = e.db LEFT JOIN touched t ON t.db = e.db AND t.key = e.key
      WHERE e.type = 'string' AND (e.version, e.site) >= (e.cut_version, e.cut_site)
        AND (e.version, e.site) >= (ifnull(f.version, 0), ifnull(f.site, 0))
        AND t.key IS NULL
    UNION ALL
    SELECT h.db, h.key, iif(e.type = 'set', 'set', 'hash'), h.field, iif(e.type = 'set', NULL, h.value), h.version, h.site,
           iif((e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
               AND (e.expire_version, e.expire_site) >= (ifnull(f.version, 0), ifnull(f.site, 0)), expire_at, NULL)
      FROM field h LEFT JOIN entry e ON e.db = h.db AND e.key = h.key LEFT JOIN flushed f ON f.db = h.db
        LEFT JOIN touched t ON t.db = h.db AND t.key = h.key
      WHERE NOT h.deleted AND (h.version, h.site) >= (ifnull(e.cut_version, 0), ifnull(e.cut_site, 0))
        AND (e.type IS NOT 'string' OR (h.version, h.site) > (e.version, e.site))
        AND (h.version, h.site) >= (ifnull(f.version, 0), ifnull(f.site, 0))
        AND t.key IS NULL
  ),
  fact AS (
    SELECT db, key, type AS what, NULL AS field, value, NULL AS expire_at, version, site,
           printf('%016x%016x', version, site) AS stamp
      FROM touched JOIN entry USING (db, key) WHERE type <> 'none'
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, cut_version, cut_site, printf('%016x%016x', cut_version, cut_site)
      FROM touched JOIN entry USING (db, key)
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, expire_at, expire_version, expire_site,
           printf('%016x%016x', expire_version, expire_site)
      FROM touched JOIN entry USING (db, key)
    UNION ALL
    SELECT h.db, h.key, iif(e.type = 'set', 'member', 'field'), h.field, iif(h.deleted, NULL, h.value), NULL, h.version, h.site,
           printf('%016x%016x', h.version, h.site)
      FROM touched t JOIN field h ON h.db = t.db AND h.key = t.key LEFT JOIN entry e ON e.db = t.db AND e.key = t.key
    UNION ALL
    SELECT db, key, 'string', NULL, ifnull(value, x''), NULL, version, site, stamp
      FROM tail WHERE kind IN ('set', 'update')
    UNION ALL
    SELECT db, key, 'field', field, iif(kind = 'hdel', NULL, ifnull(value, x'')), NULL, version, site, stamp
      FROM tail WHERE kind IN ('hset', 'hcreate', 'hdel')
    UNION ALL
    SELECT db, key, 'member', field, iif(kind = 'srem', NULL, x''), NULL, version, site, stamp
      FROM tail WHERE kind IN ('sadd', 'screate', 'srem')
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, version, site, stamp
      FROM tail WHERE kind IN ('set', 'del')
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, iif(kind IN ('set', 'expire'), expire_at, NULL), version, site, stamp
      FROM tail WHERE kind IN ('set', 'del', 'expire', 'hcreate', 'screate')
  ),
  winner AS (
    SELECT db, key, what, field, value, expire_at, version, site, max(stamp) AS stamp
    FROM fact GROUP BY db, key, what, field
  ),
  judged AS (
    SELECT db, key, what, field, value, version, site, stamp,
           ifnull(max(stamp) FILTER (WHERE what = 'cut') OVER same_key, '') AS cut,
           ifnull(max(stamp) FILTER (WHERE what = 'string') OVER same_key, '') AS string_stamp,
           ifnull(max(stamp) FILTER (WHERE what IN ('hash', 'field')) OVER same_key, '') AS hash_stamp,
           ifnull(max(stamp) FILTER (WHERE what IN ('set', 'member')) OVER same_key, '') AS set_stamp,
           max(stamp) FILTER (WHERE what = 'deadline') OVER same_key AS deadline_stamp,
           max(expire_at) FILTER (WHERE what = 'deadline') OVER same_key AS expire_at
    FROM winner WINDOW same_key AS (PARTITION BY db, key)
  ),
  unsettled AS (
    SELECT j.db, j.key, CASE what WHEN 'field' THEN 'hash' WHEN 'member' THEN 'set' ELSE 'string' END AS type, j.field,
           iif(what = 'member', NULL, j.value) AS value, j.version, j.site,
           iif(deadline_stamp >= max(cut, ifnull(f.stamp, '')), expire_at, NULL) AS expire_at
    FROM judged j LEFT JOIN flushed f ON f.db = j.db
    WHERE what IN ('string', 'field', 'member') AND j.value IS NOT NULL AND j.stamp >= max(cut, ifnull(f.stamp, ''))
      AND j.stamp > CASE what WHEN 'string' THEN max(hash_stamp, set_stamp) WHEN 'field' THEN max(string_stamp, set_stamp)
                              ELSE max(string_stamp, hash_stamp) END
  ),
  shown AS (SELECT * FROM settled UNION ALL SELECT * FROM unsettled)
SELECT db, @key@ AS key, type, @field@ AS field, @value@ AS value, expire_at, version, site
FROM shown
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

std::string view_sql() {
  std::string view = kCurrentView;
  for (const char* column : {"key", "field", "value"}) {
    std::string mark = "@";
    mark.append(column).append("@");
    replace_all(view, mark, readable(column));
  }
  return view;
}

std::string version_sql() { return "PRAGMA user_version = " + std::to_string(kSchemaVersion) + ";\n"; }

}  // namespace

std::string schema_sql() {
  return kTables + view_sql() + "PRAGMA application_id = " + std::to_string(kApplicationId) + ";\n" +
         version_sql();
}

// Version 2 has sets: its tables are the same, the view shows more.
std::string migration_sql() { return "DROP VIEW current;\n" + view_sql() + version_sql(); }

}  // namespace isthmus::backend
