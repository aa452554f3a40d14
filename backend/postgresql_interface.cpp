#include <algorithm>
#include <string_view>

#include "backend/postgresql_tables.hpp"

namespace isthmus::backend {
namespace {

// `stamp` is (version, site) as an array, which compares like the pair and has a max(). Most keys are only in
// the checkpoint and are shown as they are there: `settled`. For a key that the log behind it touches, every
// statement about it is one `fact`; of each register (the string, a field, the deletion, the deadline) the
// fact with the highest stamp wins; then a look at all winners of the key tells which of them show. Counters:
// the totals of a base are added to it if it is the winner. Those that began with nothing are added up
// (`risen`), each as long as nothing is newer than what its site had seen; a site that found nothing and
// remembered nothing has the highest site in its stamp (MERGE.md, "Counters"). Of a set's member each site
// has a register of its own (`dot`), and the member is there if any of them says so (MERGE.md, "Sets").
constexpr const char* kCurrentView = R"sql(
CREATE OR REPLACE VIEW isthmus.current AS
WITH
  tail AS (
    SELECT c.db, c.kind, c.key_bytes AS key, c.field_bytes AS field, c.value_bytes AS value, c.version, c.site, c.expire_at,
           c.copied, c.base_version, c.base_site, c.counter, c.total, ARRAY[c.version, c.site] AS stamp
    FROM isthmus.changes c LEFT JOIN isthmus.progress ON progress.origin = c.origin
    WHERE c.arrived >= (SELECT covered_from FROM isthmus.site) AND c.seq > coalesce(progress.seq, 0)
  ),
  flushed AS (
    SELECT db, max(stamp) AS stamp FROM (
      SELECT db, stamp FROM tail WHERE kind = 'flush' UNION ALL
      SELECT db, ARRAY[version, site] FROM isthmus.flush) f GROUP BY db
  ),
  touched AS (SELECT DISTINCT db, key FROM tail WHERE kind <> 'flush'),
  settled AS (
    SELECT e.db, e.key, 'string' AS type, NULL::bytea AS field,
           CASE WHEN e.totals IS NULL THEN e.value ELSE isthmus.counted(e.value, e.totals) END AS value,
           e.version, e.site,
           CASE WHEN (e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
                 AND ARRAY[e.expire_version, e.expire_site] >= coalesce(f.stamp, '{0,0}')
                THEN e.expire_at END AS expire_at
      FROM isthmus.entry e LEFT JOIN flushed f ON f.db = e.db
        LEFT JOIN touched t ON t.db = e.db AND t.key = e.key
      WHERE e.type = 'string' AND (e.version, e.site) >= (e.cut_version, e.cut_site)
        AND ARRAY[e.version, e.site] >= coalesce(f.stamp, '{0,0}') AND t.key IS NULL
    UNION ALL
    SELECT h.db, h.key, coalesce(nullif(e.type, 'string'), 'hash'), h.field,
           CASE WHEN e.type = 'set' THEN NULL WHEN h.totals IS NULL THEN h.value
                ELSE isthmus.counted(h.value, h.totals) END, h.version, h.site,
           CASE WHEN (e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
                 AND ARRAY[e.expire_version, e.expire_site] >= coalesce(f.stamp, '{0,0}')
                THEN e.expire_at END
      FROM isthmus.field h LEFT JOIN isthmus.entry e ON e.db = h.db AND e.key = h.key
        LEFT JOIN flushed f ON f.db = h.db LEFT JOIN touched t ON t.db = h.db AND t.key = h.key
      WHERE NOT h.deleted AND (h.version, h.site) >= (coalesce(e.cut_version, 0), coalesce(e.cut_site, 0))
        AND (coalesce(e.type, 'hash') IN ('hash', 'set') OR (h.version, h.site) > (e.version, e.site))
        AND ARRAY[h.version, h.site] >= coalesce(f.stamp, '{0,0}') AND t.key IS NULL
  ),
  counts AS (
    SELECT db, key, 'string' AS what, NULL::bytea AS field, value AS base, t.*
      FROM touched JOIN isthmus.entry USING (db, key), isthmus.totals_of(totals) AS t
    UNION ALL
    SELECT db, key, 'field', field, value, t.*
      FROM touched JOIN isthmus.field USING (db, key), isthmus.totals_of(totals) AS t
    UNION ALL
    SELECT db, key, CASE kind WHEN 'incr' THEN 'string' ELSE 'field' END, field, nullif(value, ''), counter, total, version,
           ARRAY[base_version, CASE base_site WHEN 0 THEN 9223372036854775807 ELSE base_site END]
      FROM tail WHERE kind IN ('incr', 'hincr')
  ),
  dot AS (
    SELECT f.db, f.key, f.field, coalesce(d.version, f.version) AS version, coalesce(d.site, f.site) AS site,
           coalesce(d.removed, f.deleted) AS removed
      FROM touched t JOIN isthmus.entry e ON e.db = t.db AND e.key = t.key AND e.type = 'set'
        JOIN isthmus.field f ON f.db = t.db AND f.key = t.key LEFT JOIN isthmus.dots_of(f.totals) AS d ON true
    UNION ALL
    SELECT db, key, field, coalesce(base_version, version), CASE WHEN base_version IS NULL THEN site ELSE base_site END,
           kind = 'srem'
      FROM tail WHERE kind IN ('sadd', 'screate', 'srem')
  ),
  member AS (
    SELECT db, key, field, max(ARRAY[version, site]) AS stamp
    FROM (SELECT DISTINCT ON (db, key, field, site) * FROM dot ORDER BY db, key, field, site, version DESC, removed DESC) newest
    WHERE NOT removed GROUP BY db, key, field
  ),
  fact AS (
    SELECT db, key, type AS what, NULL::bytea AS field, value, NULL::bigint AS expire_at,
           ARRAY[version, site] AS stamp
      FROM touched JOIN isthmus.entry USING (db, key) WHERE type <> 'none' AND NOT (totals IS NOT NULL AND value IS NULL)
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL,
           CASE WHEN type = 'none' THEN greatest(ARRAY[version, site], ARRAY[cut_version, cut_site])
                ELSE ARRAY[cut_version, cut_site] END
      FROM touched JOIN isthmus.entry USING (db, key)
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, expire_at, ARRAY[expire_version, expire_site]
      FROM touched JOIN isthmus.entry USING (db, key)
    UNION ALL
    SELECT t.db, t.key, 'field', f.field, CASE WHEN NOT f.deleted THEN f.value END, NULL, ARRAY[f.version, f.site]
      FROM touched t JOIN isthmus.field f ON f.db = t.db AND f.key = t.key
        LEFT JOIN isthmus.entry e ON e.db = t.db AND e.key = t.key
      WHERE e.type IS DISTINCT FROM 'set' AND NOT (f.totals IS NOT NULL AND f.value IS NULL)
    UNION ALL
    SELECT db, key, 'set', NULL, NULL, NULL, ARRAY[version, site] FROM dot
    UNION ALL
    SELECT db, key, 'string', NULL, coalesce(value, ''), NULL, stamp FROM tail WHERE kind IN ('set', 'update')
    UNION ALL
    SELECT db, key, 'field', field, CASE WHEN kind <> 'hdel' THEN coalesce(value, '') END, NULL, stamp
      FROM tail WHERE kind IN ('hset', 'hcreate', 'hdel')
    UNION ALL
    SELECT db, key, CASE kind WHEN 'htype' THEN 'hash' ELSE 'set' END, NULL, NULL, NULL, stamp
      FROM tail WHERE kind IN ('htype', 'stype')
    UNION ALL
    SELECT db, key, what, field, base, NULL, stamp FROM counts WHERE base IS NOT NULL
    UNION ALL
    SELECT db, key, 'hash', NULL, NULL, NULL, stamp FROM counts WHERE base IS NULL AND what = 'field'
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, stamp FROM tail WHERE kind IN ('set', 'del')
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, CASE WHEN kind IN ('set', 'expire') THEN expire_at END, stamp
      FROM tail WHERE kind IN ('set', 'expire', 'hcreate', 'screate') OR (kind = 'del' AND NOT copied)
  ),
  winner AS (
    SELECT DISTINCT ON (db, key, what, field) * FROM fact ORDER BY db, key, what, field, stamp DESC
  ),
  bounds AS (
    SELECT db, key, max(stamp) FILTER (WHERE what = 'cut') AS cut, max(stamp) FILTER (WHERE what = 'string') AS string_stamp,
           max(stamp) FILTER (WHERE what IN ('hash', 'field')) AS hash_stamp, max(stamp) FILTER (WHERE what = 'set') AS set_stamp,
           max(stamp) FILTER (WHERE what = 'deadline') AS deadline_stamp,
           max(expire_at) FILTER (WHERE what = 'deadline') AS expire_at
    FROM winner GROUP BY db, key
  ),
  counted AS (
    SELECT db, key, what, field, stamp, sum(total) AS total
    FROM (SELECT DISTINCT ON (db, key, what, field, stamp, counter) * FROM counts WHERE base IS NOT NULL
          ORDER BY db, key, what, field, stamp, counter, at DESC) latest
    GROUP BY db, key, what, field, stamp
  ),
  from_nothing AS (
    SELECT DISTINCT ON (n.db, n.key, n.what, n.field, n.counter) n.*
    FROM (SELECT *, max(stamp) FILTER (WHERE stamp[2] < 9223372036854775807)
                    OVER (PARTITION BY db, key, what, field) AS last_write FROM counts WHERE base IS NULL) n
      LEFT JOIN bounds b ON b.db = n.db AND b.key = n.key LEFT JOIN flushed f ON f.db = n.db
      LEFT JOIN winner w ON w.db = n.db AND w.key = n.key AND w.what = 'field' AND w.field = n.field
    WHERE n.stamp >= coalesce(greatest(n.last_write, b.cut, b.string_stamp, b.set_stamp, f.stamp,
                                       CASE n.what WHEN 'string' THEN b.hash_stamp ELSE w.stamp END), '{0,0}')
    ORDER BY n.db, n.key, n.what, n.field, n.counter, n.at DESC
  ),
  risen AS (
    SELECT db, key, what, field, sum(total) AS total, max(stamp) AS stamp
    FROM from_nothing n
    WHERE NOT EXISTS (SELECT FROM from_nothing m WHERE m.db = n.db AND m.key = n.key AND m.what = n.what
                      AND m.field IS NOT DISTINCT FROM n.field AND m.stamp[2] = 9223372036854775807 AND n.at <= m.stamp[1])
    GROUP BY db, key, what, field
  ),
  living AS (
    SELECT w.db, w.key, w.what, w.field, w.stamp,
           CASE WHEN c.total IS NULL THEN w.value ELSE isthmus.sum_of(w.value, c.total) END AS value
    FROM winner w JOIN bounds b ON b.db = w.db AND b.key = w.key LEFT JOIN flushed f ON f.db = w.db
      LEFT JOIN counted c ON c.db = w.db AND c.key = w.key AND c.what = w.what AND c.stamp = w.stamp
        AND c.field IS NOT DISTINCT FROM w.field
      LEFT JOIN risen s ON s.db = w.db AND s.key = w.key AND s.what = 'string'
      LEFT JOIN risen h ON h.db = w.db AND h.key = w.key AND h.what = 'field' AND h.field = w.field
    WHERE w.what IN ('string', 'field') AND w.value IS NOT NULL AND s.total IS NULL AND h.total IS NULL
      AND w.stamp >= coalesce(greatest(b.cut, f.stamp), '{0,0}')
      AND w.stamp > coalesce(greatest(b.set_stamp, CASE w.what WHEN 'string' THEN b.hash_stamp ELSE b.string_stamp END), '{0,0}')
    UNION ALL
    SELECT m.db, m.key, 'member', m.field, m.stamp, NULL
    FROM member m JOIN bounds b ON b.db = m.db AND b.key = m.key LEFT JOIN flushed f ON f.db = m.db
    WHERE m.stamp > coalesce(greatest(b.cut, f.stamp, b.string_stamp, b.hash_stamp), '{0,0}')
      AND NOT EXISTS (SELECT FROM risen s WHERE s.db = m.db AND s.key = m.key AND s.what = 'string')
    UNION ALL
    SELECT db, key, what, field, stamp, isthmus.sum_of(NULL, total) FROM risen r
    WHERE what = 'string' OR NOT EXISTS (SELECT FROM risen s WHERE s.db = r.db AND s.key = r.key AND s.what = 'string')
  ),
  unsettled AS (
    SELECT l.db, l.key, CASE l.what WHEN 'field' THEN 'hash' WHEN 'member' THEN 'set' ELSE 'string' END AS type, l.field, l.value,
           l.stamp[1] AS version, l.stamp[2] AS site,
           CASE WHEN b.deadline_stamp >= coalesce(greatest(b.cut, f.stamp), '{0,0}') THEN b.expire_at END AS expire_at
    FROM living l LEFT JOIN bounds b ON b.db = l.db AND b.key = l.key LEFT JOIN flushed f ON f.db = l.db
  ),
  shown AS (SELECT * FROM settled UNION ALL SELECT * FROM unsettled)
SELECT db, isthmus.readable(key) AS key, type, isthmus.readable(field) AS field, isthmus.readable(value) AS value,
       to_timestamp(expire_at / 1000.0) AS expire_at, version, site,
       key AS key_bytes, field AS field_bytes, value AS value_bytes
FROM shown
WHERE expire_at IS NULL OR expire_at > extract(epoch FROM clock_timestamp()) * 1000;
COMMENT ON VIEW isthmus.current IS
'The state as of now: one row for each string, each field of a hash and each member of a set. The columns key, field and value are for reading,
and show bytes that are no text as \x...; key_bytes, field_bytes and value_bytes are exact';
)sql";

// What consists of ASCII alone, which is the common case, is told without the cost of an exception block.
// Parallel queries allow no such block, so the function is not declared safe for them.
constexpr const char* kReadable = R"sql(
CREATE OR REPLACE FUNCTION isthmus.readable(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE escaped text := encode(bytes, 'escape');
BEGIN
  IF length(escaped) = length(bytes) THEN RETURN escaped; END IF;
  RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  RETURN '\x' || encode(bytes, 'hex');
END $$;
COMMENT ON FUNCTION isthmus.readable(bytea) IS 'Bytes as text where they are UTF-8, else as \x and hexadecimal';

CREATE OR REPLACE FUNCTION isthmus.totals_of(totals text, OUT counter bigint, OUT total bigint, OUT at bigint,
  OUT stamp bigint[]) RETURNS SETOF record LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT p[1]::bigint, p[2]::bigint, p[3]::bigint, ARRAY[p[4]::bigint, p[5]::bigint]
  FROM regexp_matches(totals, '(\d+)=(-?\d+)@(\d+),\d+,(\d+),(\d+)', 'g') AS p
$$;
COMMENT ON FUNCTION isthmus.totals_of(text) IS 'What leases have counted: the column totals, taken apart';

CREATE OR REPLACE FUNCTION isthmus.dots_of(dots text, OUT site bigint, OUT version bigint, OUT removed boolean)
  RETURNS SETOF record LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
  SELECT p[1]::bigint, p[2]::bigint, p[3] = '-' FROM regexp_matches(dots, '(\d+)=(\d+)(-?)', 'g') AS p
$$;
COMMENT ON FUNCTION isthmus.dots_of(text) IS 'Which site has added a member of a set, and when: the column totals, taken apart';

CREATE OR REPLACE FUNCTION isthmus.sum_of(base bytea, total numeric) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT convert_to(least(greatest(total + CASE WHEN encode(base, 'escape') ~ '^-?[0-9]+$'
    THEN encode(base, 'escape')::numeric ELSE 0 END, -9223372036854775808), 9223372036854775807)::text, 'UTF8')
$$;
COMMENT ON FUNCTION isthmus.sum_of(bytea, numeric) IS 'A counter: its base, NULL for none, and what was added';

CREATE OR REPLACE FUNCTION isthmus.counted(base bytea, totals text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT isthmus.sum_of(base, coalesce(sum(t.total), 0)) FROM isthmus.totals_of(totals) AS t
$$;
COMMENT ON FUNCTION isthmus.counted(bytea, text) IS 'A counter: its base, NULL for none, and the column totals';

CREATE OR REPLACE FUNCTION isthmus.deadline(ttl interval) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT (extract(epoch FROM clock_timestamp() + ttl) * 1000)::bigint
$$;
COMMENT ON FUNCTION isthmus.deadline(interval) IS 'So long from now, in milliseconds since 1970; NULL for NULL';
)sql";

// One row for each change, also of those that share a row of the log (row_pack.hpp). The function is strict,
// so that it is not made a part of the query: PostgreSQL then believes its number of rows, instead of a
// thousand.
constexpr const char* kChangesView = R"sql(
CREATE OR REPLACE FUNCTION isthmus.changes_of(keys bytea, descriptions bytea, all_values bytea, replies bytea,
  OUT number bigint, OUT kind text, OUT group_end boolean, OUT db smallint, OUT behind bigint, OUT key bytea, OUT field bytea,
  OUT value bytea, OUT expire_at bigint, OUT event text, OUT requester bigint, OUT request bigint, OUT reply bytea,
  OUT base_version bigint, OUT base_site bigint, OUT counter bigint, OUT total bigint)
  RETURNS SETOF record LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE ROWS 30 AS $$
  SELECT number, p[1], NOT goes_on, p[2]::smallint, coalesce(nullif(p[3], '')::bigint, 0),
         substr(keys, 1 + keys_before, key_size), substr(keys, 1 + keys_before + coalesce(key_size, 0), field_size),
         substr(all_values, 1 + values_before, value_size), nullif(p[7], '')::bigint, replace(nullif(p[8], ''), '/', ','),
         nullif(p[9], '')::bigint, nullif(p[10], '')::bigint, substr(replies, 1 + replies_before, reply_size),
         nullif(p[12], '')::bigint, nullif(p[13], '')::bigint, nullif(p[14], '')::bigint, nullif(p[15], '')::bigint
  FROM (
    SELECT sizes.*, coalesce(sum(coalesce(key_size, 0) + coalesce(field_size, 0)) OVER earlier, 0)::integer AS keys_before,
           coalesce(sum(value_size) OVER earlier, 0)::integer AS values_before,
           coalesce(sum(reply_size) OVER earlier, 0)::integer AS replies_before
    FROM (SELECT number, description LIKE '+%' AS goes_on, p, nullif(p[4], '')::integer AS key_size,
                 nullif(p[5], '')::integer AS field_size, nullif(p[6], '')::integer AS value_size,
                 nullif(p[11], '')::integer AS reply_size
          FROM string_to_table(encode(descriptions, 'escape'), ' ') WITH ORDINALITY AS d (description, number),
               string_to_array(ltrim(description, '+'), ',') AS p) sizes
    WINDOW earlier AS (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
  ) places
$$;
COMMENT ON FUNCTION isthmus.changes_of(bytea, bytea, bytea, bytea) IS
'The changes that share a row of isthmus.log, of kind changes, by its key, field, value and reply. See isthmus.changes';

CREATE OR REPLACE VIEW isthmus.changes AS
SELECT l.arrived, l.site, l.origin, c.seq, c.version, c.db, c.kind, c.group_end, isthmus.readable(c.key) AS key,
       isthmus.readable(c.field) AS field, isthmus.readable(c.value) AS value, c.expire_at, c.event, c.requester, c.request,
       isthmus.readable(c.reply) AS reply, l.copied, c.base_version, c.base_site, c.counter, c.total, c.key AS key_bytes,
       c.field AS field_bytes, c.value AS value_bytes
FROM isthmus.log l CROSS JOIN LATERAL (
  SELECT l.seq, l.version, l.db, l.kind, l.group_end, l.key, l.field, l.value, l.expire_at, l.event, l.requester, l.request,
         l.reply, l.base_version, l.base_site, l.counter, l.total
  WHERE l.kind <> 'changes'
  UNION ALL
  SELECT l.seq - l.total + number, l.version + behind, db, kind, group_end, key, field, value, expire_at, event, requester,
         request, reply, base_version, base_site, counter, total
  FROM isthmus.changes_of(l.key, l.field, l.value, coalesce(l.reply, ''))
  WHERE l.kind = 'changes'
) c
WHERE l.kind NOT IN ('publish', 'spublish', 'subscribers', 'lease', 'frontier', 'reach');
COMMENT ON VIEW isthmus.changes IS
'The changes of the state in the log, one row each. key, field and value are for reading; key_bytes, field_bytes and
value_bytes are exact';
)sql";

// One row for each message, also of those that share a row of the log (row_pack.hpp).
constexpr const char* kMessagesView = R"sql(
CREATE OR REPLACE VIEW isthmus.messages AS
SELECT l.arrived, l.site, l.origin, l.seq - coalesce(l.total, 1) + m.number AS seq, l.kind,
       to_timestamp(l.sent_at / 1000.0) AS sent_at, isthmus.readable(m.channel) AS channel,
       isthmus.readable(m.payload) AS payload, m.channel AS channel_bytes, m.payload AS payload_bytes
FROM isthmus.log l CROSS JOIN LATERAL (
  SELECT number, substr(l.key, 1 + coalesce(sum(channel) OVER earlier, 0)::integer, channel) AS channel,
         substr(l.value, 1 + coalesce(sum(payload) OVER earlier, 0)::integer, payload) AS payload
  FROM (SELECT number, split_part(sizes, '+', 1)::integer AS channel, split_part(sizes, '+', 2)::integer AS payload
        FROM regexp_split_to_table(coalesce(encode(l.field, 'escape'), octet_length(l.key) || '+' || octet_length(l.value)),
                                   ' ') WITH ORDINALITY AS s (sizes, number)) parts
  WINDOW earlier AS (ORDER BY number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) m
WHERE l.kind IN ('publish', 'spublish');
COMMENT ON VIEW isthmus.messages IS
'The messages in the log, one row each. channel and payload are for reading; channel_bytes and payload_bytes are exact';
)sql";

struct SqlFunction {
  const char* name;
  /// Parameters with @type@ for text or bytea.
  const char* parameters;
  /// The columns of the inbox and what goes into them, with @key@ and so on for the bytes of a parameter.
  const char* columns;
  const char* values;
  const char* comment;
};

constexpr SqlFunction kFunctions[] = {
    {"set", "key @type@, value @type@, ttl interval DEFAULT NULL, db integer DEFAULT 0",
     "key, value, expire_at, db", "@key@, @value@, isthmus.deadline(ttl), $4",
     "Redis's SET, with a time to live"},
    {"hset", "key @type@, field @type@, value @type@, db integer DEFAULT 0", "key, field, value, db",
     "@key@, @field@, @value@, $4", "Redis's HSET of one field"},
    {"del", "key @type@, db integer DEFAULT 0", "key, db", "@key@, $2", "Redis's DEL of one key"},
    {"hdel", "key @type@, field @type@, db integer DEFAULT 0", "key, field, db", "@key@, @field@, $3",
     "Redis's HDEL of one field"},
    {"sadd", "key @type@, member @type@, db integer DEFAULT 0", "key, field, db", "@key@, @member@, $3",
     "Redis's SADD of one member"},
    {"srem", "key @type@, member @type@, db integer DEFAULT 0", "key, field, db", "@key@, @member@, $3",
     "Redis's SREM of one member"},
    {"expire", "key @type@, ttl interval, db integer DEFAULT 0", "key, expire_at, db",
     "@key@, isthmus.deadline(ttl), $3", "Redis's EXPIRE; with NULL for ttl its PERSIST"},
    {"publish", "channel @type@, message @type@", "key, value", "@channel@, @message@", "Redis's PUBLISH"},
};

/// The signature without names and defaults, as COMMENT ON and REVOKE want it: the types in their order.
std::string signature(std::string parameters) {
  std::string types;
  std::size_t from = 0;
  while (from < parameters.size()) {
    const std::size_t end = std::min(parameters.find(", ", from), parameters.size());
    const std::string parameter = parameters.substr(from, end - from);
    const std::size_t type = parameter.find(' ') + 1;
    if (!types.empty()) types += ", ";
    types += parameter.substr(type, parameter.find(' ', type) - type);
    from = end + 2;
  }
  return types;
}

/// One function, for text or for bytea. As the owner of the inbox, so that a role needs nothing but EXECUTE;
/// and with a search path of its own, so that nobody can slip in another operator.
std::string function_sql(const SqlFunction& function, const std::string& type) {
  std::string parameters = function.parameters;
  std::string values = function.values;
  replace_all(parameters, "@type@", type);
  const bool is_text = type == "text";
  for (const char* name : {"key", "field", "member", "value", "channel", "message"}) {
    const std::string mark = std::string("@") + name + "@";
    const std::string argument = std::string(function.name) + "." + name;
    replace_all(values, mark, is_text ? "convert_to(" + argument + ", 'UTF8')" : argument);
  }
  const std::string head = std::string("isthmus.") + function.name;
  const std::string name_of = "FUNCTION " + head + "(" + signature(parameters) + ")";
  std::string comment = function.comment;
  replace_all(comment, "'", "''");
  return "CREATE OR REPLACE FUNCTION " + head + "(" + parameters +
         ") RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$\n"
         "  INSERT INTO isthmus.inbox (op, " +
         function.columns + ") VALUES ('" + function.name + "', " + values + ")\n$$;\nCOMMENT ON " + name_of +
         " IS '" + comment + "';\nREVOKE ALL ON " + name_of + " FROM PUBLIC;\n";
}

}  // namespace

std::string postgresql_sql_interface() {
  std::string sql = kReadable;
  sql += kChangesView;
  sql += kCurrentView;
  sql += kMessagesView;
  for (const SqlFunction& function : kFunctions) {
    for (const char* type : {"text", "bytea"}) sql += function_sql(function, type);
  }
  return sql;
}

}  // namespace isthmus::backend
