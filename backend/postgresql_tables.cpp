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

void fill_in(std::string& sql) {
  replace_all(sql, "@feed@", kPublication);
  replace_all(sql, "@feed_of_writer@", kWriterPublication);
  replace_all(sql, "@link@", kLinkPublication);
  replace_all(sql, "@link_columns@", kLinkColumns);
  replace_all(sql, "@checkpoint_storage@", kCheckpointStorage);
  replace_all(sql, "@small_storage@", kSmallStorage);
}

}  // namespace

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size())) {
    text.replace(at, what.size(), with);
  }
}

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

}  // namespace isthmus::backend
