#include "backend/postgresql_tables.hpp"

#include <algorithm>
#include <string_view>

#include "backend/postgresql_schema.hpp"
#include "backend/random_id.hpp"

namespace isthmus::backend {
namespace {

// The wide column `value` comes last, so that reading the others never walks over it. Of the log only a BRIN
// index is kept: 136 kB for three million rows, and 4 % of the rate of COPY, where a btree takes 20 to 40 %.
// There is no number for the order of writing: an identity is 6 % of a COPY, and seq orders the rows of an
// origin. With now() for `arrived` COPY would insert by the page, and make a slot in memory for each row of
// each COPY: that costs more than it saves as long as a COPY has some hundred rows.
constexpr const char* kTables = R"sql(
CREATE SCHEMA isthmus;
COMMENT ON SCHEMA isthmus IS
'Isthmus: a Redis server on this database. Read isthmus.current; write with isthmus.set, hset, del, hdel, sadd, srem, expire
and publish, also from triggers. For an application''s role: GRANT USAGE ON SCHEMA isthmus TO app; GRANT EXECUTE ON ALL
FUNCTIONS IN SCHEMA isthmus TO app; GRANT SELECT ON isthmus.current TO app;';

CREATE TABLE isthmus.schema_version (version bigint NOT NULL, since timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE isthmus.schema_version IS 'One row for each version this schema has had; the highest counts';

CREATE TABLE isthmus.log (
  arrived    timestamptz NOT NULL DEFAULT clock_timestamp(),
  site       bigint NOT NULL,
  origin     bigint NOT NULL,
  seq        bigint NOT NULL,
  version    bigint NOT NULL,
  db         smallint NOT NULL,
  kind       text NOT NULL,
  group_end  boolean NOT NULL,
  key        bytea,
  field      bytea,
  expire_at  bigint,
  sent_at    bigint,
  event      text,
  requester  bigint,
  request    bigint,
  reply      bytea,
  copied     boolean NOT NULL DEFAULT false,
  base_version  bigint,
  base_site  bigint,
  counter    bigint,
  total      bigint,
  value      bytea
) PARTITION BY RANGE (arrived);
CREATE INDEX log_origin_seq ON isthmus.log USING brin (origin, seq) WITH (pages_per_range = 64);
CREATE TABLE isthmus.log_default PARTITION OF isthmus.log DEFAULT;
COMMENT ON COLUMN isthmus.log.arrived IS 'When it was written here';
COMMENT ON COLUMN isthmus.log.site IS 'The site where it happened';
COMMENT ON COLUMN isthmus.log.origin IS 'Who numbered it: a lease, or a server process for messages';
COMMENT ON COLUMN isthmus.log.seq IS '1, 2, 3 ... within its origin';
COMMENT ON COLUMN isthmus.log.version IS
'Milliseconds since 1970, times 65536, plus a counter; the highest one wins. 0: a message of a server that was not
the writer';
COMMENT ON COLUMN isthmus.log.group_end IS 'The last row of one command or one EXEC';
COMMENT ON COLUMN isthmus.log.expire_at IS 'Deadline in milliseconds since 1970; NULL: none';
COMMENT ON COLUMN isthmus.log.sent_at IS 'Of a message: milliseconds since 1970';
COMMENT ON COLUMN isthmus.log.event IS 'The keyspace events that the row raises';
COMMENT ON COLUMN isthmus.log.requester IS 'The server that forwarded the command; of a lease: its holder';
COMMENT ON COLUMN isthmus.log.request IS 'Which of the requester''s requests it was';
COMMENT ON COLUMN isthmus.log.reply IS 'What the requester is told';
COMMENT ON TABLE isthmus.log_default IS
'Rows for which no partition was there, as after a jump of the clock. Normally empty';

CREATE TABLE isthmus.entry (
  db              smallint NOT NULL,
  key             bytea NOT NULL,
  type            text NOT NULL,
  version         bigint NOT NULL,
  site            bigint NOT NULL,
  cut_version     bigint NOT NULL,
  cut_site        bigint NOT NULL,
  expire_at       bigint,
  expire_version  bigint NOT NULL,
  expire_site     bigint NOT NULL,
  totals          text,
  value           bytea
) WITH (@checkpoint_storage@);
CREATE UNIQUE INDEX entry_key ON isthmus.entry (db, (@key@));
COMMENT ON TABLE isthmus.entry IS 'The checkpoint: one row a key, with the value of a string. See isthmus.current';
COMMENT ON COLUMN isthmus.entry.type IS 'string hash set; none: a deleted key that must still be remembered';
COMMENT ON COLUMN isthmus.entry.cut_version IS 'With cut_site: what is older was deleted';
COMMENT ON COLUMN isthmus.entry.expire_at IS 'Deadline in milliseconds since 1970; NULL: none';
COMMENT ON COLUMN isthmus.entry.expire_version IS 'With expire_site: when the deadline was written';

CREATE TABLE isthmus.field (
  db       smallint NOT NULL,
  key      bytea NOT NULL,
  field    bytea NOT NULL,
  version  bigint NOT NULL,
  site     bigint NOT NULL,
  deleted  boolean NOT NULL,
  totals   text,
  value    bytea
) WITH (@checkpoint_storage@);
CREATE UNIQUE INDEX field_key ON isthmus.field (db, (@key@), (@field@));
COMMENT ON TABLE isthmus.field IS 'The checkpoint: the fields of the hashes and the members of the sets. See isthmus.current';
COMMENT ON COLUMN isthmus.field.deleted IS 'A deleted field that must still be remembered';

CREATE TABLE isthmus.progress (
  origin      bigint PRIMARY KEY,
  site        bigint,
  seq         bigint NOT NULL,
  cut         bigint NOT NULL DEFAULT 0,
  updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.progress IS 'How far the checkpoint covers the log';
COMMENT ON COLUMN isthmus.progress.cut IS 'Up to this seq rows may have been cut from the log';

CREATE TABLE isthmus.inbox (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  op         text NOT NULL CHECK (op IN ('set', 'hset', 'del', 'hdel', 'sadd', 'srem', 'expire', 'publish')),
  db         smallint NOT NULL DEFAULT 0 CHECK (db BETWEEN 0 AND 15),
  key        bytea NOT NULL,
  field      bytea,
  value      bytea,
  expire_at  bigint,
  CHECK (field IS NOT NULL OR op NOT IN ('hset', 'hdel', 'sadd', 'srem')),
  CHECK (value IS NOT NULL OR op NOT IN ('set', 'hset', 'publish'))
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.inbox IS
'What SQL clients want done and no server has done yet. Filled by the functions isthmus.set and the others';

CREATE TABLE isthmus.site (
  id            bigint NOT NULL,
  name          text,
  secret        text NOT NULL,
  born          timestamptz NOT NULL DEFAULT now(),
  covered_from  timestamptz NOT NULL DEFAULT '-infinity'
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.site IS 'One row: this database';
COMMENT ON COLUMN isthmus.site.secret IS 'Who shows it may forward commands: known to the servers of the site only';
COMMENT ON COLUMN isthmus.site.covered_from IS 'What arrived before is in the checkpoint';

CREATE TABLE isthmus.lease (
  id        bigint PRIMARY KEY,
  server    bigint NOT NULL,
  address   text NOT NULL,
  pid       integer,
  taken_at  timestamptz,
  beat      timestamptz
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.lease IS 'One row: who evaluates the commands that change the state';
COMMENT ON COLUMN isthmus.lease.pid IS 'The backend whose advisory lock makes it the holder';
COMMENT ON COLUMN isthmus.lease.beat IS 'Its last sign of life';

CREATE TABLE isthmus.server (
  id       bigint PRIMARY KEY,
  address  text NOT NULL,
  version  text NOT NULL,
  started  timestamptz NOT NULL DEFAULT clock_timestamp(),
  seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  writer   boolean NOT NULL DEFAULT false
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.server IS 'The servers of this site, and when each gave its last sign of life';

INSERT INTO isthmus.site (id, secret)
  VALUES (@site@, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
INSERT INTO isthmus.lease (id, server, address) VALUES (0, 0, '');
)sql";

// What versions 2 to 4 say of columns, to new databases and to older ones.
constexpr const char* kComments = R"sql(
COMMENT ON TABLE isthmus.log IS
'Everything that happened in the last minutes: changes of the state and messages, to be read in isthmus.changes and
isthmus.messages. Only appended to, in groups; cut by dropping partitions behind the checkpoint';
COMMENT ON COLUMN isthmus.log.key IS
'Of a message: the channel. Of several in one row: theirs, one behind the other. Of a lease: where its holder listens';
COMMENT ON COLUMN isthmus.log.field IS
'Of several messages or changes in one row: what each is, with its lengths. isthmus.messages and isthmus.changes take them apart';
COMMENT ON COLUMN isthmus.log.kind IS
'set update hset hcreate hdel del expire incr hincr htype sadd screate srem stype flush publish spublish lease frontier reach subscribers. changes: several changes
in one row, of which version is the first one''s and seq the last one''s; isthmus.changes takes them apart';
COMMENT ON COLUMN isthmus.log.copied IS
'Taken over from another site''s database by a server, and not brought by that site''s stream';
COMMENT ON COLUMN isthmus.log.base_version IS
'Of incr and hincr, with base_site: what was counted on; value is what it was then. base_site 0: nothing was there. Of srem: the
add that is taken back; NULL: those of its own site until then';
COMMENT ON COLUMN isthmus.log.counter IS 'Of incr and hincr: the lease under which it was counted';
COMMENT ON COLUMN isthmus.log.total IS
'Of incr and hincr: what that lease has added to the base so far. Of several messages or changes in one row: how many; seq is the
last one''s';
COMMENT ON COLUMN isthmus.entry.totals IS
'Of a string that sites count on, to be added to value: lease=total@version,site,base_version,base_site of each lease';
COMMENT ON COLUMN isthmus.field.totals IS
'As that of entry. Of a member that several sites have added: site=version of each, with a minus if that add was taken back';
COMMENT ON COLUMN isthmus.progress.site IS 'Whose origin it is; 0 or NULL: not known, or one of copied rows, which may be of several sites';
COMMENT ON COLUMN isthmus.site.name IS 'What people call this site; NULL if nobody has named it';
)sql";

constexpr const char* kTablesOfVersion2 = R"sql(
CREATE TABLE isthmus.flush (
  db       smallint PRIMARY KEY,
  version  bigint NOT NULL,
  site     bigint NOT NULL
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.flush IS
'The checkpoint: databases that were flushed and must still be remembered; what is older was deleted';

CREATE TABLE isthmus.frontier (
  site     bigint NOT NULL,
  of_site  bigint NOT NULL,
  version  bigint NOT NULL,
  PRIMARY KEY (site, of_site)
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.frontier IS
'The checkpoint: up to which version a site has said that it has everything of another one';

CREATE TABLE isthmus.peer (
  name             text PRIMARY KEY,
  id               bigint NOT NULL DEFAULT 0,
  conninfo         text NOT NULL,
  slot             text NOT NULL DEFAULT '',
  state            text NOT NULL DEFAULT 'new',
  detail           text NOT NULL DEFAULT '',
  since            timestamptz NOT NULL DEFAULT clock_timestamp(),
  clock_offset_ms  bigint NOT NULL DEFAULT 0,
  lag_ms           bigint NOT NULL DEFAULT 0,
  lag_rows         bigint NOT NULL DEFAULT 0,
  slot_bytes       bigint NOT NULL DEFAULT 0,
  slot_state       text NOT NULL DEFAULT ''
) WITH (@small_storage@);
COMMENT ON TABLE isthmus.peer IS 'The other sites. Holds passwords: for the owner only';
COMMENT ON COLUMN isthmus.peer.name IS 'As the option --peer says';
COMMENT ON COLUMN isthmus.peer.id IS 'The id in its table isthmus.site; 0: never reached yet';
COMMENT ON COLUMN isthmus.peer.conninfo IS 'How the PostgreSQL of this site connects to that of the peer. Secret';
COMMENT ON COLUMN isthmus.peer.slot IS 'The slot there through which this site receives; empty: no link yet';
COMMENT ON COLUMN isthmus.peer.state IS 'up down seeding refused new, as the writer of this site has found it';
COMMENT ON COLUMN isthmus.peer.detail IS 'Why it is not up';
COMMENT ON COLUMN isthmus.peer.since IS 'Since when it is in that state';
COMMENT ON COLUMN isthmus.peer.clock_offset_ms IS 'The clock of its database minus ours';
COMMENT ON COLUMN isthmus.peer.lag_ms IS 'The age of its newest frontier in our log';
COMMENT ON COLUMN isthmus.peer.lag_rows IS 'Rows in its log that ours lacks';
COMMENT ON COLUMN isthmus.peer.slot_bytes IS 'WAL that the PostgreSQL of this site keeps for it';
COMMENT ON COLUMN isthmus.peer.slot_state IS 'wal_status of the slot that keeps it; empty if there is none';
)sql";

// The columns of an older database stay in their order: `value` is then in the middle.
constexpr const char* kFromVersion1 = R"sql(
ALTER TABLE isthmus.log
  ADD COLUMN copied boolean NOT NULL DEFAULT false, ADD COLUMN base_version bigint, ADD COLUMN base_site bigint,
  ADD COLUMN counter bigint, ADD COLUMN total bigint;
ALTER TABLE isthmus.entry ADD COLUMN totals text;
ALTER TABLE isthmus.field ADD COLUMN totals text;
ALTER TABLE isthmus.progress ADD COLUMN site bigint;
ALTER TABLE isthmus.site ADD COLUMN name text;
UPDATE isthmus.progress SET site = (SELECT id FROM isthmus.site);
)sql";

// The names are those that PostgreSQL gives to the constraints of kTables. `position` stays, empty, for
// servers of version 2 that still run: they name it where they read the log anew.
constexpr const char* kFromVersion2 = R"sql(
ALTER TABLE isthmus.log ALTER COLUMN position DROP IDENTITY IF EXISTS, ALTER COLUMN position DROP NOT NULL;
COMMENT ON COLUMN isthmus.log.position IS 'Of no use since version 3 of the schema, which new databases have without it';
ALTER TABLE isthmus.inbox DROP CONSTRAINT inbox_op_check, DROP CONSTRAINT inbox_check;
ALTER TABLE isthmus.inbox
  ADD CONSTRAINT inbox_op_check CHECK (op IN ('set', 'hset', 'del', 'hdel', 'sadd', 'srem', 'expire', 'publish')),
  ADD CONSTRAINT inbox_check CHECK (field IS NOT NULL OR op NOT IN ('hset', 'hdel', 'sadd', 'srem'));
COMMENT ON TABLE isthmus.field IS 'The checkpoint: the fields of the hashes and the members of the sets. See isthmus.current';
COMMENT ON COLUMN isthmus.entry.type IS 'string hash set; none: a deleted key that must still be remembered';
)sql";

// One may be left of a schema that somebody has dropped. It is never dropped and made anew: a slot that has
// seen it fails for ever then.
// What a site has copied from another one stays there, its own rows too: they would arrive as if they had
// just happened. The columns of isthmus_link are those of the oldest version that may be at its other end: a
// column is added everywhere before it is published.
constexpr const char* kPublicationsSql = R"sql(
DO $$
DECLARE
  own bigint := (SELECT id FROM isthmus.site);
  wanted record;
BEGIN
  FOR wanted IN VALUES
    ('@feed@', 'isthmus.log, isthmus.inbox'),
    ('@feed_of_writer@', format(
      'isthmus.log WHERE (version = 0 OR kind IN (''lease'', ''frontier'') OR site <> %s OR copied), isthmus.inbox', own)),
    ('@link@', format('isthmus.log (@link_columns@) WHERE (site = %s AND NOT copied)', own))
  LOOP
    IF EXISTS (SELECT FROM pg_publication WHERE pubname = wanted.column1) THEN
      EXECUTE format('ALTER PUBLICATION %I SET TABLE ', wanted.column1) || wanted.column2;
      EXECUTE format('ALTER PUBLICATION %I SET (publish = ''insert'', publish_via_partition_root = true)', wanted.column1);
    ELSE
      EXECUTE format('CREATE PUBLICATION %I FOR TABLE ', wanted.column1) || wanted.column2 ||
        ' WITH (publish = ''insert'', publish_via_partition_root = true)';
    END IF;
  END LOOP;
END $$;
)sql";

// Room in every page for the next versions of its rows, which then need no new index entries (heap-only
// tuples); and a vacuum that begins at 2 % dead rows and does not pause, because a checkpoint comes every ten
// seconds.
constexpr const char* kCheckpointStorage =
    "fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, "
    "autovacuum_vacuum_cost_delay = 0";
// Tables of few rows that change every second.
constexpr const char* kSmallStorage =
    "fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, "
    "autovacuum_vacuum_cost_delay = 0";

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

// One row for each change, also of those that share a row of the log (row_pack.hpp). The function is strict, so that it is
// not made a part of the query: PostgreSQL then believes its number of rows, instead of a thousand.
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

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

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

void fill_in(std::string& sql) {
  replace_all(sql, "@feed@", kPublication);
  replace_all(sql, "@feed_of_writer@", kWriterPublication);
  replace_all(sql, "@link@", kLinkPublication);
  replace_all(sql, "@link_columns@", kLinkColumns);
  replace_all(sql, "@checkpoint_storage@", kCheckpointStorage);
  replace_all(sql, "@small_storage@", kSmallStorage);
}

}  // namespace

std::string postgresql_tables_sql() {
  std::string sql = std::string(kTables) + kTablesOfVersion2 + kComments + kPublicationsSql;
  fill_in(sql);
  replace_all(sql, "@site@", std::to_string(random_id()));
  replace_all(sql, "@key@", index_part("key"));
  replace_all(sql, "@field@", index_part("field"));
  return sql;
}

std::string postgresql_migration_sql(std::int64_t from_version) {
  std::string sql = from_version == 1 ? std::string(kFromVersion1) + kTablesOfVersion2 : std::string();
  if (from_version <= 2) sql += kFromVersion2;
  sql.append(kComments).append(kPublicationsSql);
  fill_in(sql);
  return sql;
}

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
