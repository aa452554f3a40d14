#include "backend/postgresql_feed_reads.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "backend/postgresql_copy.hpp"

namespace isthmus::backend {
namespace {

/// The session reads much at once and writes nothing: room to sort some 100,000 rows of the log in memory, no
/// compilation of queries that run once, and no limits that the role may have for its short statements.
constexpr const char* kSettings =
    "SET work_mem = '64MB'; SET jit = off; SET statement_timeout = 0; SET "
    "idle_in_transaction_session_timeout = 0; "
    "SET lock_timeout = '5s'; SET TIME ZONE 'UTC'; SET datestyle = 'ISO'";

/// So much earlier than the last known row of an origin may its next ones have arrived: as far as a clock is
/// expected to step back.
constexpr const char* kClockMargin = "interval '60 seconds'";

constexpr const char* kForever = "-infinity";

/// A list of origins as a relation k(origin, known, rank), the rank being the place in the list. Numbers
/// only, so nothing in it needs quoting.
std::string origins_relation(const std::vector<std::pair<OriginId, Seq>>& origins) {
  if (origins.empty()) return "(SELECT 0::bigint, 0::bigint, 0 WHERE false) AS k(origin, known, rank)";
  std::string sql = "(VALUES ";
  for (std::size_t i = 0; i < origins.size(); ++i) {
    if (i != 0) sql += ',';
    sql += "(" + std::to_string(origins[i].first) + "::bigint," + std::to_string(origins[i].second) +
           "::bigint," + std::to_string(i) + ")";
  }
  return sql + ") AS k(origin, known, rank)";
}

std::optional<std::int64_t> integer_or_none(const CopyReader& reader, std::size_t column) {
  if (reader->is_null(column)) return std::nullopt;
  return reader->integer(column);
}

Seq seq_of(const Vector& vector, OriginId origin) {
  const auto found = vector.find(origin);
  return found == vector.end() ? 0 : found->second;
}

[[noreturn]] void throw_newer(std::string_view what, std::string_view name) {
  throw PgError("the " + std::string(what) + " '" + std::string(name) +
                    "' is unknown: a newer Isthmus wrote it; use that version",
                "", false);
}

StoredType stored_type(std::string_view name) {
  if (name == "string") return StoredType::string;
  if (name == "hash") return StoredType::hash;
  if (name == "none") return StoredType::none;
  throw_newer("type of a key", name);
}

/// The current row, whose columns are those of kLogColumns.
Row row_of(const CopyReader& reader) {
  Row row;
  row.site = reader->integer(0);
  row.origin = reader->integer(1);
  row.seq = static_cast<Seq>(reader->integer(2));
  row.version = static_cast<Version>(reader->integer(3));
  row.db = static_cast<std::uint8_t>(reader->integer(4));
  const std::optional<RowKind> kind = row_kind_from_name(reader->bytes(5));
  if (!kind) throw_newer("kind of a log row", reader->bytes(5));
  row.kind = *kind;
  row.group_end = reader->boolean(6);
  row.key = reader->bytes(7);
  row.field = reader->bytes(8);
  row.expire_at = integer_or_none(reader, 9);
  row.sent_at = reader->integer(10);
  row.event = reader->bytes(11);
  row.requester = reader->integer(12);
  row.request = static_cast<std::uint64_t>(reader->integer(13));
  row.reply = reader->bytes(14);
  row.value = reader->bytes(15);
  return row;
}

}  // namespace

FeedReads::FeedReads(PgConnection& connection) : connection_(connection) { connection_.exec(kSettings); }

void FeedReads::begin_snapshot() {
  connection_.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
  read_lease();
  read_progress();
}

void FeedReads::end_snapshot() { connection_.exec("COMMIT"); }

void FeedReads::read_lease() {
  const PgResult row = connection_.exec("SELECT id, server, address FROM isthmus.lease");
  newest_lease_ = {};
  if (row.rows() == 1) newest_lease_ = {row.integer(0, 0), row.integer(0, 1), row.string(0, 2)};
}

void FeedReads::read_progress() {
  progress_.clear();
  last_seqs_.clear();
  const PgResult site = connection_.exec("SELECT covered_from FROM isthmus.site");
  covered_from_ = site.rows() == 1 ? site.string(0, 0) : kForever;
  const PgResult rows = connection_.exec("SELECT origin, seq, cut FROM isthmus.progress");
  for (int i = 0; i < rows.rows(); ++i) {
    const OriginId origin = rows.integer(i, 0);
    const Progress progress{static_cast<Seq>(rows.integer(i, 1)), static_cast<Seq>(rows.integer(i, 2))};
    progress_[origin] = progress;
    last_seqs_[origin] = std::max(progress.seq, progress.cut);
  }
}

void FeedReads::read_state(LoadSink& sink) {
  begin_snapshot();
  Vector covered;
  for (const auto& [origin, progress] : progress_) {
    covered[origin] = progress.seq;
    sink.covered(origin, progress.seq, 0);
  }
  read_keys(sink);
  read_fields(sink);
  const std::vector<Beyond> beyond = look_beyond(covered, covered_from_);
  read_log(covered, covered_from_, beyond, false, &sink, nullptr);
  end_snapshot();
}

void FeedReads::read_keys(LoadSink& sink) {
  CopyReader reader(connection_,
                    "COPY (SELECT db, key, type, version, site, cut_version, cut_site, expire_at, "
                    "expire_version, expire_site, value FROM isthmus.entry) TO STDOUT (FORMAT binary)");
  StoredKey key;
  while (reader.next()) {
    key.db = static_cast<std::uint8_t>(reader->integer(0));
    key.key = reader->bytes(1);
    key.type = stored_type(reader->bytes(2));
    key.version = static_cast<Version>(reader->integer(3));
    key.site = reader->integer(4);
    key.cut_version = static_cast<Version>(reader->integer(5));
    key.cut_site = reader->integer(6);
    key.expire_at = integer_or_none(reader, 7);
    key.expire_version = static_cast<Version>(reader->integer(8));
    key.expire_site = reader->integer(9);
    key.value = reader->bytes(10);
    // A string that was set and later deleted: the deletion is what remains.
    if (key.type == StoredType::string &&
        std::tie(key.version, key.site) < std::tie(key.cut_version, key.cut_site)) {
      key.type = StoredType::none;
      key.value.clear();
    }
    sink.key(key);
  }
}

// Fields that a deletion of their key or a newer string has superseded are left out. A field whose key has no
// row of its own gets a key that claims nothing.
void FeedReads::read_fields(LoadSink& sink) {
  CopyReader reader(connection_,
                    "COPY (SELECT f.db, f.key, f.field, f.version, f.site, f.deleted, f.value, e.key IS NULL "
                    "FROM isthmus.field f LEFT JOIN isthmus.entry e ON e.db = f.db AND e.key = f.key "
                    "WHERE e.key IS NULL OR ((f.version, f.site) >= (e.cut_version, e.cut_site) "
                    "AND (e.type <> 'string' OR (f.version, f.site) >= (e.version, e.site)))) "
                    "TO STDOUT (FORMAT binary)");
  std::set<std::pair<std::uint8_t, std::string>> orphans;
  StoredField field;
  while (reader.next()) {
    field.db = static_cast<std::uint8_t>(reader->integer(0));
    field.key = reader->bytes(1);
    field.field = reader->bytes(2);
    field.version = static_cast<Version>(reader->integer(3));
    field.site = reader->integer(4);
    field.deleted = reader->boolean(5);
    field.value = reader->bytes(6);
    if (reader->boolean(7) && orphans.emplace(field.db, field.key).second) {
      StoredKey owner;
      owner.db = field.db;
      owner.key = field.key;
      owner.type = StoredType::hash;
      sink.key(owner);
    }
    sink.field(field);
  }
}

/// Which origins have rows beyond `known` among those that arrived at `since` or later, in the order in which
/// their first one did; and the highest seq of every origin there.
std::vector<FeedReads::Beyond> FeedReads::look_beyond(const Vector& known, const std::string& since) {
  const std::vector<std::pair<OriginId, Seq>> origins(known.begin(), known.end());
  const std::string sql =
      "SELECT l.origin, max(l.seq), min(l.seq) FILTER (WHERE l.seq > coalesce(k.known, 0)), "
      "min(l.arrived) FILTER (WHERE l.seq > coalesce(k.known, 0)) FROM isthmus.log l LEFT JOIN " +
      origins_relation(origins) + " ON k.origin = l.origin WHERE l.arrived >= " + connection_.literal(since) +
      "::timestamptz GROUP BY l.origin ORDER BY 4, 1";
  const PgResult rows = connection_.exec(sql);
  std::vector<Beyond> beyond;
  for (int i = 0; i < rows.rows(); ++i) {
    const OriginId origin = rows.integer(i, 0);
    Seq& last = last_seqs_[origin];
    last = std::max(last, static_cast<Seq>(rows.integer(i, 1)));
    if (!rows.is_null(i, 2))
      beyond.push_back({static_cast<Seq>(rows.integer(i, 2)), rows.string(i, 3), origin});
  }
  return beyond;
}

/// Hands out the rows of the log beyond `known`, origin by origin in the order of `beyond`: so the groups of
/// an origin stay whole. Within an origin the order of `position` is that of seq, but for rows that were
/// appended again: those are repeats.
void FeedReads::read_log(const Vector& known, const std::string& since, const std::vector<Beyond>& beyond,
                         bool with_messages, LoadSink* load, FeedSink* feed) {
  if (beyond.empty()) return;
  std::vector<std::pair<OriginId, Seq>> origins;
  for (const Beyond& part : beyond) origins.emplace_back(part.origin, seq_of(known, part.origin));
  const std::string value =
      with_messages ? "l.value" : "CASE WHEN l.kind NOT IN ('publish', 'spublish') THEN l.value END";
  CopyReader reader(
      connection_,
      "COPY (SELECT l.site, l.origin, l.seq, l.version, l.db, l.kind, l.group_end, l.key, l.field, "
      "l.expire_at, l.sent_at, l.event, l.requester, l.request, l.reply, " +
          value + " FROM isthmus.log l JOIN " + origins_relation(origins) +
          " ON k.origin = l.origin AND l.seq > k.known WHERE l.arrived >= " + connection_.literal(since) +
          "::timestamptz ORDER BY k.rank, l.position) TO STDOUT (FORMAT binary)");
  while (reader.next()) {
    const Row row = row_of(reader);
    if (load != nullptr) load->row(row);
    if (feed != nullptr) feed->row(row);
  }
}

/// A time such that all rows beyond `known` have arrived since, as far as the clock was steady. Most breaks
/// are shorter than a checkpoint takes: then what is missing is behind the checkpoint. Else the last row that
/// is known of an origin tells.
std::string FeedReads::since(const Vector& known) {
  std::string earliest = connection_.literal(covered_from_) + "::timestamptz";
  for (const auto& [origin, progress] : progress_) {
    const Seq last = seq_of(known, origin);
    if (progress.seq <= last) continue;
    // For the BRIN index on (origin, seq).
    const PgResult found =
        connection_.exec("SELECT min(arrived) - " + std::string(kClockMargin) +
                         " FROM isthmus.log WHERE origin = " + std::to_string(origin) + " AND seq IN (" +
                         std::to_string(last) + ", " + std::to_string(last + 1) + ")");
    if (found.is_null(0, 0)) return kForever;
    earliest = "least(" + earliest + ", " + connection_.literal(found.bytes(0, 0)) + "::timestamptz)";
  }
  return connection_.exec("SELECT " + earliest).string(0, 0);
}

bool FeedReads::read_missing(const Vector& known, FeedSink& sink) {
  begin_snapshot();
  bool complete = true;
  for (const auto& [origin, progress] : progress_) complete &= progress.cut <= seq_of(known, origin);
  std::string from = complete ? since(known) : covered_from_;
  std::vector<Beyond> beyond = look_beyond(known, from);
  // Where the checkpoint is ahead of `known`, the first missing row must be the next one: else the clock was
  // not steady, and all of the log is looked at.
  const auto reaches_back = [&] {
    return std::all_of(progress_.begin(), progress_.end(), [&](const auto& of) {
      const Seq last = seq_of(known, of.first);
      if (of.second.seq <= last) return true;
      return std::any_of(beyond.begin(), beyond.end(), [&](const Beyond& part) {
        return part.origin == of.first && part.first == last + 1;
      });
    });
  };
  if (complete && from != kForever && !reaches_back()) {
    from = kForever;
    beyond = look_beyond(known, from);
  }
  if (complete) read_log(known, from, beyond, true, nullptr, &sink);
  end_snapshot();
  return complete;
}

std::vector<InboxRow> FeedReads::read_inbox() {
  std::vector<InboxRow> inbox;
  CopyReader reader(connection_,
                    "COPY (SELECT id, op, db, key, field, value, expire_at FROM isthmus.inbox ORDER BY id) "
                    "TO STDOUT (FORMAT binary)");
  while (reader.next()) {
    InboxRow& row = inbox.emplace_back();
    row.id = reader->integer(0);
    row.op = reader->bytes(1);
    row.db = static_cast<std::uint8_t>(reader->integer(2));
    row.key = reader->bytes(3);
    row.field = reader->bytes(4);
    row.value = reader->bytes(5);
    row.expire_at = integer_or_none(reader, 6);
  }
  return inbox;
}

}  // namespace isthmus::backend
