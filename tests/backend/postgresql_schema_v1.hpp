// The statements with which schema version 1 was made, word for word, for the test of what becomes of such a
// database.
#pragma once

namespace isthmus::backend::test {

// clang-format off
inline constexpr const char* kSchemaVersion1 = R"sql(
CREATE SCHEMA isthmus;
COMMENT ON SCHEMA isthmus IS
'Isthmus: a Redis server on this database. Read isthmus.current; write with isthmus.set, hset, del, hdel, expire and
publish, also from triggers. For an application''s role: GRANT USAGE ON SCHEMA isthmus TO app; GRANT EXECUTE ON ALL
FUNCTIONS IN SCHEMA isthmus TO app; GRANT SELECT ON isthmus.current TO app;';

CREATE TABLE isthmus.schema_version (version bigint NOT NULL, since timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE isthmus.schema_version IS 'One row for each version this schema has had; the highest counts';

CREATE TABLE isthmus.log (
  position   bigint GENERATED ALWAYS AS IDENTITY (CACHE 1000),
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
  value      bytea
) PARTITION BY RANGE (arrived);
CREATE INDEX log_origin_seq ON isthmus.log USING brin (origin, seq) WITH (pages_per_range = 64);
CREATE TABLE isthmus.log_default PARTITION OF isthmus.log DEFAULT;
COMMENT ON TABLE isthmus.log IS
'Everything that happened in the last minutes: changes of the state and messages. Only appended to, in groups; cut by
dropping partitions behind the checkpoint';
COMMENT ON COLUMN isthmus.log.position IS 'Grows with the time of writing, with gaps; not the order of commit';
COMMENT ON COLUMN isthmus.log.arrived IS 'When it was written here';
COMMENT ON COLUMN isthmus.log.site IS 'The site where it happened';
COMMENT ON COLUMN isthmus.log.origin IS 'Who numbered it: a lease, or a server process for messages';
COMMENT ON COLUMN isthmus.log.seq IS '1, 2, 3 ... within its origin';
COMMENT ON COLUMN isthmus.log.version IS
'Milliseconds since 1970, times 65536, plus a counter; the highest one wins. 0: a message of a server that was not
the writer';
COMMENT ON COLUMN isthmus.log.kind IS 'set update hset hcreate hdel del expire flush publish spublish lease';
COMMENT ON COLUMN isthmus.log.group_end IS 'The last row of one command or one EXEC';
COMMENT ON COLUMN isthmus.log.key IS 'Of a message: the channel. Of a lease: where its holder listens';
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
  value           bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX entry_key ON isthmus.entry (db, (CASE WHEN octet_length(key) <= 1024 THEN key ELSE substr(key, 1, 1000) || sha256(key) END));
COMMENT ON TABLE isthmus.entry IS 'The checkpoint: one row a key, with the value of a string. See isthmus.current';
COMMENT ON COLUMN isthmus.entry.type IS 'string hash; none: a deleted key that must still be remembered';
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
  value    bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX field_key ON isthmus.field (db, (CASE WHEN octet_length(key) <= 1024 THEN key ELSE substr(key, 1, 1000) || sha256(key) END), (CASE WHEN octet_length(field) <= 1024 THEN field ELSE substr(field, 1, 1000) || sha256(field) END));
COMMENT ON TABLE isthmus.field IS 'The checkpoint: the fields of the hashes. See isthmus.current';
COMMENT ON COLUMN isthmus.field.deleted IS 'A deleted field that must still be remembered';

CREATE TABLE isthmus.progress (
  origin      bigint PRIMARY KEY,
  seq         bigint NOT NULL,
  cut         bigint NOT NULL DEFAULT 0,
  updated_at  timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE isthmus.progress IS 'How far the checkpoint covers the log';
COMMENT ON COLUMN isthmus.progress.cut IS 'Up to this seq rows may have been cut from the log';

CREATE TABLE isthmus.inbox (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  op         text NOT NULL CHECK (op IN ('set', 'hset', 'del', 'hdel', 'expire', 'publish')),
  db         smallint NOT NULL DEFAULT 0 CHECK (db BETWEEN 0 AND 15),
  key        bytea NOT NULL,
  field      bytea,
  value      bytea,
  expire_at  bigint,
  CHECK (field IS NOT NULL OR op NOT IN ('hset', 'hdel')),
  CHECK (value IS NOT NULL OR op NOT IN ('set', 'hset', 'publish'))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE isthmus.inbox IS
'What SQL clients want done and no server has done yet. Filled by the functions isthmus.set and the others';

CREATE TABLE isthmus.site (
  id            bigint NOT NULL,
  secret        text NOT NULL,
  born          timestamptz NOT NULL DEFAULT now(),
  covered_from  timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
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
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
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
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE isthmus.server IS 'The servers of this site, and when each gave its last sign of life';

INSERT INTO isthmus.site (id, secret)
  VALUES (1234567, replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));
INSERT INTO isthmus.lease (id, server, address) VALUES (0, 0, '');

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_publication WHERE pubname = 'isthmus_feed') THEN
    ALTER PUBLICATION isthmus_feed SET TABLE isthmus.log , isthmus.inbox;
    ALTER PUBLICATION isthmus_feed SET (publish = 'insert', publish_via_partition_root = true);
  ELSE
    CREATE PUBLICATION isthmus_feed FOR TABLE isthmus.log , isthmus.inbox
      WITH (publish = 'insert', publish_via_partition_root = true);
  END IF;
END $$;

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_publication WHERE pubname = 'isthmus_feed_of_writer') THEN
    ALTER PUBLICATION isthmus_feed_of_writer SET TABLE isthmus.log WHERE (version = 0 OR kind = 'lease'), isthmus.inbox;
    ALTER PUBLICATION isthmus_feed_of_writer SET (publish = 'insert', publish_via_partition_root = true);
  ELSE
    CREATE PUBLICATION isthmus_feed_of_writer FOR TABLE isthmus.log WHERE (version = 0 OR kind = 'lease'), isthmus.inbox
      WITH (publish = 'insert', publish_via_partition_root = true);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION isthmus.readable(bytes bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE escaped text := encode(bytes, 'escape');
BEGIN
  IF length(escaped) = length(bytes) THEN RETURN escaped; END IF;
  RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  RETURN '\x' || encode(bytes, 'hex');
END $$;
COMMENT ON FUNCTION isthmus.readable(bytea) IS 'Bytes as text where they are UTF-8, else as \x and hexadecimal';

CREATE OR REPLACE FUNCTION isthmus.deadline(ttl interval) RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT (extract(epoch FROM clock_timestamp() + ttl) * 1000)::bigint
$$;
COMMENT ON FUNCTION isthmus.deadline(interval) IS 'So long from now, in milliseconds since 1970; NULL for NULL';

CREATE OR REPLACE VIEW isthmus.current AS
WITH
  tail AS (
    SELECT log.*, ARRAY[log.version, log.site] AS stamp
    FROM isthmus.log LEFT JOIN isthmus.progress ON progress.origin = log.origin
    WHERE log.arrived >= (SELECT covered_from FROM isthmus.site) AND log.seq > coalesce(progress.seq, 0)
      AND log.kind NOT IN ('publish', 'spublish', 'lease')
  ),
  flushed AS (SELECT db, max(stamp) AS stamp FROM tail WHERE kind = 'flush' GROUP BY db),
  touched AS (SELECT DISTINCT db, key FROM tail WHERE kind <> 'flush'),
  settled AS (
    SELECT e.db, e.key, 'string' AS type, NULL::bytea AS field, e.value, e.version, e.site,
           CASE WHEN (e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
                 AND ARRAY[e.expire_version, e.expire_site] >= coalesce(f.stamp, '{0,0}')
                THEN e.expire_at END AS expire_at
      FROM isthmus.entry e LEFT JOIN flushed f ON f.db = e.db
        LEFT JOIN touched t ON t.db = e.db AND t.key = e.key
      WHERE e.type = 'string' AND (e.version, e.site) >= (e.cut_version, e.cut_site)
        AND ARRAY[e.version, e.site] >= coalesce(f.stamp, '{0,0}') AND t.key IS NULL
    UNION ALL
    SELECT h.db, h.key, 'hash', h.field, h.value, h.version, h.site,
           CASE WHEN (e.expire_version, e.expire_site) >= (e.cut_version, e.cut_site)
                 AND ARRAY[e.expire_version, e.expire_site] >= coalesce(f.stamp, '{0,0}')
                THEN e.expire_at END
      FROM isthmus.field h LEFT JOIN isthmus.entry e ON e.db = h.db AND e.key = h.key
        LEFT JOIN flushed f ON f.db = h.db LEFT JOIN touched t ON t.db = h.db AND t.key = h.key
      WHERE NOT h.deleted AND (h.version, h.site) >= (coalesce(e.cut_version, 0), coalesce(e.cut_site, 0))
        AND (e.type IS DISTINCT FROM 'string' OR (h.version, h.site) > (e.version, e.site))
        AND ARRAY[h.version, h.site] >= coalesce(f.stamp, '{0,0}') AND t.key IS NULL
  ),
  fact AS (
    SELECT db, key, type AS what, NULL::bytea AS field, value, NULL::bigint AS expire_at,
           ARRAY[version, site] AS stamp
      FROM touched JOIN isthmus.entry USING (db, key) WHERE type <> 'none'
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, ARRAY[cut_version, cut_site]
      FROM touched JOIN isthmus.entry USING (db, key)
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, expire_at, ARRAY[expire_version, expire_site]
      FROM touched JOIN isthmus.entry USING (db, key)
    UNION ALL
    SELECT db, key, 'field', field, CASE WHEN NOT deleted THEN value END, NULL, ARRAY[version, site]
      FROM touched JOIN isthmus.field USING (db, key)
    UNION ALL
    SELECT db, key, 'string', NULL, coalesce(value, ''), NULL, stamp FROM tail WHERE kind IN ('set', 'update')
    UNION ALL
    SELECT db, key, 'field', field, CASE WHEN kind <> 'hdel' THEN coalesce(value, '') END, NULL, stamp
      FROM tail WHERE kind IN ('hset', 'hcreate', 'hdel')
    UNION ALL
    SELECT db, key, 'cut', NULL, NULL, NULL, stamp FROM tail WHERE kind IN ('set', 'del')
    UNION ALL
    SELECT db, key, 'deadline', NULL, NULL, CASE WHEN kind IN ('set', 'expire') THEN expire_at END, stamp
      FROM tail WHERE kind IN ('set', 'del', 'expire', 'hcreate')
  ),
  winner AS (
    SELECT DISTINCT ON (db, key, what, field) * FROM fact ORDER BY db, key, what, field, stamp DESC
  ),
  judged AS (
    SELECT db, key, what, field, value, stamp,
           coalesce(max(stamp) FILTER (WHERE what = 'cut') OVER same_key, '{0,0}') AS cut,
           coalesce(max(stamp) FILTER (WHERE what = 'string') OVER same_key, '{0,0}') AS string_stamp,
           coalesce(max(stamp) FILTER (WHERE what IN ('hash', 'field')) OVER same_key, '{0,0}') AS hash_stamp,
           max(stamp) FILTER (WHERE what = 'deadline') OVER same_key AS deadline_stamp,
           max(expire_at) FILTER (WHERE what = 'deadline') OVER same_key AS expire_at
    FROM winner WINDOW same_key AS (PARTITION BY db, key)
  ),
  unsettled AS (
    SELECT j.db, j.key, CASE what WHEN 'field' THEN 'hash' ELSE 'string' END AS type, j.field, j.value,
           j.stamp[1] AS version, j.stamp[2] AS site,
           CASE WHEN deadline_stamp >= greatest(cut, f.stamp) THEN expire_at END AS expire_at
    FROM judged j LEFT JOIN flushed f ON f.db = j.db
    WHERE what IN ('string', 'field') AND value IS NOT NULL AND j.stamp >= greatest(cut, f.stamp)
      AND j.stamp > CASE what WHEN 'string' THEN hash_stamp ELSE string_stamp END
  ),
  shown AS (SELECT * FROM settled UNION ALL SELECT * FROM unsettled)
SELECT db, isthmus.readable(key) AS key, type, isthmus.readable(field) AS field, isthmus.readable(value) AS value,
       to_timestamp(expire_at / 1000.0) AS expire_at, version, site,
       key AS key_bytes, field AS field_bytes, value AS value_bytes
FROM shown
WHERE expire_at IS NULL OR expire_at > extract(epoch FROM clock_timestamp()) * 1000;
COMMENT ON VIEW isthmus.current IS
'The state as of now: one row for each string and each field of a hash. The columns key, field and value are for reading,
and show bytes that are no text as \x...; key_bytes, field_bytes and value_bytes are exact';
CREATE OR REPLACE FUNCTION isthmus.set(key text, value text, ttl interval DEFAULT NULL, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, value, expire_at, db) VALUES ('set', convert_to(set.key, 'UTF8'), convert_to(set.value, 'UTF8'), isthmus.deadline(ttl), $4)
$$;
COMMENT ON FUNCTION isthmus.set(text, text, interval, integer) IS 'Redis''s SET, with a time to live';
REVOKE ALL ON FUNCTION isthmus.set(text, text, interval, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.set(key bytea, value bytea, ttl interval DEFAULT NULL, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, value, expire_at, db) VALUES ('set', set.key, set.value, isthmus.deadline(ttl), $4)
$$;
COMMENT ON FUNCTION isthmus.set(bytea, bytea, interval, integer) IS 'Redis''s SET, with a time to live';
REVOKE ALL ON FUNCTION isthmus.set(bytea, bytea, interval, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.hset(key text, field text, value text, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, field, value, db) VALUES ('hset', convert_to(hset.key, 'UTF8'), convert_to(hset.field, 'UTF8'), convert_to(hset.value, 'UTF8'), $4)
$$;
COMMENT ON FUNCTION isthmus.hset(text, text, text, integer) IS 'Redis''s HSET of one field';
REVOKE ALL ON FUNCTION isthmus.hset(text, text, text, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.hset(key bytea, field bytea, value bytea, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, field, value, db) VALUES ('hset', hset.key, hset.field, hset.value, $4)
$$;
COMMENT ON FUNCTION isthmus.hset(bytea, bytea, bytea, integer) IS 'Redis''s HSET of one field';
REVOKE ALL ON FUNCTION isthmus.hset(bytea, bytea, bytea, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.del(key text, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, db) VALUES ('del', convert_to(del.key, 'UTF8'), $2)
$$;
COMMENT ON FUNCTION isthmus.del(text, integer) IS 'Redis''s DEL of one key';
REVOKE ALL ON FUNCTION isthmus.del(text, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.del(key bytea, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, db) VALUES ('del', del.key, $2)
$$;
COMMENT ON FUNCTION isthmus.del(bytea, integer) IS 'Redis''s DEL of one key';
REVOKE ALL ON FUNCTION isthmus.del(bytea, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.hdel(key text, field text, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, field, db) VALUES ('hdel', convert_to(hdel.key, 'UTF8'), convert_to(hdel.field, 'UTF8'), $3)
$$;
COMMENT ON FUNCTION isthmus.hdel(text, text, integer) IS 'Redis''s HDEL of one field';
REVOKE ALL ON FUNCTION isthmus.hdel(text, text, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.hdel(key bytea, field bytea, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, field, db) VALUES ('hdel', hdel.key, hdel.field, $3)
$$;
COMMENT ON FUNCTION isthmus.hdel(bytea, bytea, integer) IS 'Redis''s HDEL of one field';
REVOKE ALL ON FUNCTION isthmus.hdel(bytea, bytea, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.expire(key text, ttl interval, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, expire_at, db) VALUES ('expire', convert_to(expire.key, 'UTF8'), isthmus.deadline(ttl), $3)
$$;
COMMENT ON FUNCTION isthmus.expire(text, interval, integer) IS 'Redis''s EXPIRE; with NULL for ttl its PERSIST';
REVOKE ALL ON FUNCTION isthmus.expire(text, interval, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.expire(key bytea, ttl interval, db integer DEFAULT 0) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, expire_at, db) VALUES ('expire', expire.key, isthmus.deadline(ttl), $3)
$$;
COMMENT ON FUNCTION isthmus.expire(bytea, interval, integer) IS 'Redis''s EXPIRE; with NULL for ttl its PERSIST';
REVOKE ALL ON FUNCTION isthmus.expire(bytea, interval, integer) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.publish(channel text, message text) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, value) VALUES ('publish', convert_to(publish.channel, 'UTF8'), convert_to(publish.message, 'UTF8'))
$$;
COMMENT ON FUNCTION isthmus.publish(text, text) IS 'Redis''s PUBLISH';
REVOKE ALL ON FUNCTION isthmus.publish(text, text) FROM PUBLIC;
CREATE OR REPLACE FUNCTION isthmus.publish(channel bytea, message bytea) RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  INSERT INTO isthmus.inbox (op, key, value) VALUES ('publish', publish.channel, publish.message)
$$;
COMMENT ON FUNCTION isthmus.publish(bytea, bytea) IS 'Redis''s PUBLISH';
REVOKE ALL ON FUNCTION isthmus.publish(bytea, bytea) FROM PUBLIC;
INSERT INTO isthmus.schema_version (version) VALUES (1);
)sql";
// clang-format on

}  // namespace isthmus::backend::test
