#include "backend/postgresql_feed_reads.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "backend/postgresql_copy.hpp"
#include "backend/row_pack.hpp"

namespace isthmus::backend {
namespace {

/// The session reads much at once and writes nothing: room to sort some 100,000 rows of the log in memory, no
/// compilation of queries that run once, and no limits that the role may have for its short statements.
constexpr const char* kSettings =
    "SET work_mem = '64MB'; SET jit = off; SET idle_in_transaction_session_timeout = 0; "
    "SET lock_timeout = '5s'; SET TIME ZONE 'UTC'; SET datestyle = 'ISO'";

/// So much earlier than the last known row of an origin may its next ones have arrived: as far as a clock is
/// expected to step back.
constexpr const char* kClockMargin = "interval '60 seconds'";

constexpr const char* kForever = "-infinity";

/// The seq of a row `l` of the log, or of the first of several in it.
constexpr const char* kFirstSeq =
    "CASE WHEN l.kind IN ('publish', 'spublish', 'changes') THEN l.seq - coalesce(l.total, 1) + 1 ELSE l.seq "
    "END";

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
  if (name == "set") return StoredType::set;
  if (name == "none") return StoredType::none;
  throw_newer("type of a key", name);
}

}  // namespace

FeedReads::FeedReads(PgConnection& connection) : connection_(connection) { connection_.exec(kSettings); }

void FeedReads::begin_snapshot() { connection_.exec("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); }

void FeedReads::begin_state() {
  begin_snapshot();
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
  sites_.clear();
  const PgResult site = connection_.exec("SELECT covered_from FROM isthmus.site");
  covered_from_ = site.rows() == 1 ? site.string(0, 0) : kForever;
  const PgResult rows = connection_.exec("SELECT origin, seq, cut, site FROM isthmus.progress");
  for (int i = 0; i < rows.rows(); ++i) {
    const OriginId origin = rows.integer(i, 0);
    const Progress progress{static_cast<Seq>(rows.integer(i, 1)), static_cast<Seq>(rows.integer(i, 2)),
                            rows.integer(i, 3)};
    progress_[origin] = progress;
    last_seqs_[origin] = std::max(progress.seq, progress.cut);
    sites_[origin] = progress.site;
  }
}

void FeedReads::read_state(LoadSink& sink) {
  begin_state();
  read_all(sink, true);
  end_snapshot();
}

void FeedReads::read_state_and_reaches(LoadSink& sink, Reaches& reaches) {
  begin_state();
  read_all(sink, false);
  for (const auto& [origin, last] : last_seqs_) {
    const auto progress = progress_.find(origin);
    reaches[origin] = {sites_[origin], last, progress == progress_.end() ? 0 : progress->second.cut};
  }
  end_snapshot();
}

void FeedReads::read_all(LoadSink& sink, bool with_messages) {
  Vector covered;
  for (const auto& [origin, progress] : progress_) {
    covered[origin] = progress.seq;
    sink.covered(origin, progress.seq, progress.site);
  }
  read_mark(sink);
  read_keys(sink);
  read_fields(sink);
  const std::vector<Beyond> beyond = look_beyond(covered, covered_from_);
  read_log(covered, covered_from_, beyond, with_messages ? Messages::without_value : Messages::none, &sink,
           nullptr);
}

void FeedReads::read_mark(LoadSink& sink) {
  const PgResult flushes = connection_.exec("SELECT db, version, site FROM isthmus.flush");
  for (int i = 0; i < flushes.rows(); ++i) {
    sink.flushed({checked_database(flushes.integer(i, 0)), static_cast<Version>(flushes.integer(i, 1)),
                  flushes.integer(i, 2)});
  }
  for (const StoredFrontier& frontier : read_frontiers(connection_)) sink.frontier(frontier);
}

void FeedReads::read_keys(LoadSink& sink) {
  CopyReader reader(
      connection_,
      "COPY (SELECT db, key, type, version, site, cut_version, cut_site, expire_at, "
      "expire_version, expire_site, value, totals FROM isthmus.entry) TO STDOUT (FORMAT binary)");
  StoredKey key;
  while (reader.next()) {
    key.db = checked_database(reader->integer(0));
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
    key.totals = reader->bytes(11);
    // A string that was set and later deleted: the deletion is what remains.
    if (key.type == StoredType::string &&
        std::tie(key.version, key.site) < std::tie(key.cut_version, key.cut_site)) {
      key.type = StoredType::none;
      key.value.clear();
      key.totals.clear();
    }
    sink.key(key);
  }
}

// Fields that a deletion of their key or a newer string has superseded are left out. A field whose key has no
// row of its own gets a key that claims nothing.
void FeedReads::read_fields(LoadSink& sink) {
  CopyReader reader(
      connection_,
      "COPY (SELECT f.db, f.key, f.field, f.version, f.site, f.deleted, f.value, e.key IS NULL, "
      "f.totals "
      "FROM isthmus.field f LEFT JOIN isthmus.entry e ON e.db = f.db AND e.key = f.key "
      "WHERE e.key IS NULL OR ((f.version, f.site) >= (e.cut_version, e.cut_site) "
      "AND (e.type <> 'string' OR (f.version, f.site) >= (e.version, e.site)))) "
      "TO STDOUT (FORMAT binary)");
  std::set<std::pair<std::uint8_t, std::string>> orphans;
  StoredField field;
  while (reader.next()) {
    field.db = checked_database(reader->integer(0));
    field.key = reader->bytes(1);
    field.field = reader->bytes(2);
    field.version = static_cast<Version>(reader->integer(3));
    field.site = reader->integer(4);
    field.deleted = reader->boolean(5);
    field.value = reader->bytes(6);
    field.totals = reader->bytes(8);
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
      "SELECT l.origin, max(l.seq), min(greatest(" + std::string(kFirstSeq) +
      ", coalesce(k.known, 0) + 1)) FILTER (WHERE l.seq > coalesce(k.known, 0)), "
      "min(l.arrived) FILTER (WHERE l.seq > coalesce(k.known, 0)), max(l.site) FILTER (WHERE NOT l.copied) "
      "FROM isthmus.log l LEFT JOIN " +
      origins_relation(origins) + " ON k.origin = l.origin WHERE l.arrived >= " + connection_.literal(since) +
      "::timestamptz GROUP BY l.origin ORDER BY 4, 1";
  const PgResult rows = connection_.exec(sql);
  std::vector<Beyond> beyond;
  for (int i = 0; i < rows.rows(); ++i) {
    const OriginId origin = rows.integer(i, 0);
    Seq& last = last_seqs_[origin];
    last = std::max(last, static_cast<Seq>(rows.integer(i, 1)));
    if (!rows.is_null(i, 4)) sites_[origin] = rows.integer(i, 4);
    if (!rows.is_null(i, 2))
      beyond.push_back({static_cast<Seq>(rows.integer(i, 2)), rows.string(i, 3), origin});
  }
  return beyond;
}

/// Hands out the rows of the log beyond `known`, origin by origin in the order of `beyond`: so the groups of
/// an origin stay whole. Rows that were appended again come twice.
void FeedReads::read_log(const Vector& known, const std::string& since, const std::vector<Beyond>& beyond,
                         Messages messages, LoadSink* load, FeedSink* feed) {
  if (beyond.empty()) return;
  std::vector<std::pair<OriginId, Seq>> origins;
  for (const Beyond& part : beyond) origins.emplace_back(part.origin, seq_of(known, part.origin));
  const std::string value =
      messages == Messages::without_value
          ? "CASE WHEN l.kind NOT IN ('publish', 'spublish', 'subscribers') THEN l.value END"
          : "l.value";
  const std::string filter =
      messages == Messages::none ? " AND l.kind NOT IN ('publish', 'spublish', 'subscribers')" : "";
  CopyReader reader(
      connection_,
      "COPY (SELECT " + select_log_columns(value) + " FROM isthmus.log l JOIN " + origins_relation(origins) +
          " ON k.origin = l.origin AND l.seq > k.known WHERE l.arrived >= " + connection_.literal(since) +
          "::timestamptz" + filter + " ORDER BY k.rank, l.seq, l.arrived) TO STDOUT (FORMAT binary)");
  std::pair<OriginId, Seq> last{0, 0};  // of an origin, and how far it is known
  read_log_rows(reader, [&](const Row& row) {
    if (row.origin != last.first) last = {row.origin, seq_of(known, row.origin)};
    // It shares a row of SQL with one beyond.
    if (row.seq <= last.second) return;
    if (load != nullptr) load->row(row);
    if (feed != nullptr) feed->row(row);
  });
}

/// A time such that all rows beyond `known` have arrived since, as far as the clock was steady. Most breaks
/// are shorter than a checkpoint takes: then what is missing is behind the checkpoint. Else the last row that
/// is known of an origin tells.
std::string FeedReads::since(const Vector& known) {
  std::string earliest = connection_.literal(covered_from_) + "::timestamptz";
  for (const auto& [origin, progress] : progress_) {
    const Seq last = seq_of(known, origin);
    if (progress.seq <= last) continue;
    // For the BRIN index on (origin, seq). The next one may stand among others in a row.
    const PgResult found =
        connection_.exec("SELECT min(arrived) - " + std::string(kClockMargin) +
                         " FROM isthmus.log WHERE origin = " + std::to_string(origin) + " AND seq BETWEEN " +
                         std::to_string(last) + " AND " + std::to_string(last + RowPacker::kMostRows));
    if (found.is_null(0, 0)) return kForever;
    earliest = "least(" + earliest + ", " + connection_.literal(found.bytes(0, 0)) + "::timestamptz)";
  }
  return connection_.exec("SELECT " + earliest).string(0, 0);
}

bool FeedReads::read_missing(const Vector& known, FeedSink& sink) {
  begin_state();
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
  if (complete) read_log(known, from, beyond, Messages::whole, nullptr, &sink);
  end_snapshot();
  return complete;
}

// An origin's numbers have no holes: what has been cut, or has never come as rows because a copy of the state
// brought it, shows as one.
bool FeedReads::read_rows(OriginId origin, Seq from, Seq to, LoadSink& sink) {
  begin_snapshot();
  const std::string rows = " FROM isthmus.log l WHERE l.origin = " + std::to_string(origin) +
                           " AND l.seq >= " + std::to_string(from) + " AND " + kFirstSeq +
                           " <= " + std::to_string(to);
  // For the BRIN index on (origin, seq), whatever the statistics say.
  connection_.exec("SET LOCAL enable_seqscan = off");
  const std::int64_t found =
      connection_
          .exec("SELECT count(DISTINCT s) FROM (SELECT generate_series(" + std::string(kFirstSeq) +
                ", l.seq) AS s" + rows + ") held WHERE s BETWEEN " + std::to_string(from) + " AND " +
                std::to_string(to))
          .integer(0, 0);
  const bool complete = static_cast<Seq>(found) == to - from + 1;
  if (complete) {
    CopyReader reader(connection_, "COPY (SELECT " + select_log_columns("l.value") + rows +
                                       " ORDER BY l.seq, l.arrived) TO STDOUT (FORMAT binary)");
    Seq last = from - 1;
    read_log_rows(reader, [&](const Row& row) {
      if (row.seq <= last || row.seq > to) return;
      last = row.seq;
      sink.row(row);
    });
  }
  end_snapshot();
  return complete;
}

void FeedReads::read_messages(SiteId site, std::int64_t sent_since, LoadSink& sink) {
  const std::string since = std::to_string(sent_since);
  CopyReader reader(connection_, "COPY (SELECT " + select_log_columns("l.value") +
                                     " FROM isthmus.log l WHERE l.site = " + std::to_string(site) +
                                     " AND l.kind IN ('publish', 'spublish') AND l.sent_at >= " + since +
                                     " AND l.arrived >= to_timestamp(" + since + " / 1000.0) - " +
                                     kClockMargin +
                                     " ORDER BY l.origin, l.seq, l.arrived) TO STDOUT (FORMAT binary)");
  std::pair<OriginId, Seq> last{0, 0};
  read_log_rows(reader, [&](const Row& row) {
    if (row.origin == last.first && row.seq <= last.second) return;
    last = {row.origin, row.seq};
    sink.row(row);
  });
}

Reaches read_reaches(PgConnection& connection) {
  const PgResult rows = connection.exec(
      "SELECT coalesce(l.origin, p.origin), coalesce(l.site, p.site, 0), greatest(l.last, p.seq, p.cut), "
      "coalesce(p.cut, 0), coalesce(l.returned, 0) FROM (SELECT origin, max(site) FILTER (WHERE NOT copied) "
      "AS "
      "site, max(seq) AS last, max(seq) FILTER (WHERE copied AND site = (SELECT id FROM isthmus.site)) AS "
      "returned FROM isthmus.log WHERE arrived >= (SELECT covered_from FROM isthmus.site) GROUP BY origin) l "
      "FULL JOIN isthmus.progress p ON p.origin = l.origin");
  Reaches reaches;
  for (int i = 0; i < rows.rows(); ++i) {
    reaches[rows.integer(i, 0)] = {rows.integer(i, 1), static_cast<Seq>(rows.integer(i, 2)),
                                   static_cast<Seq>(rows.integer(i, 3)),
                                   static_cast<Seq>(rows.integer(i, 4))};
  }
  return reaches;
}

std::vector<StoredFrontier> read_frontiers(PgConnection& connection) {
  const PgResult rows = connection.exec("SELECT site, of_site, version FROM isthmus.frontier");
  std::vector<StoredFrontier> frontiers;
  for (int i = 0; i < rows.rows(); ++i) {
    frontiers.push_back({rows.integer(i, 0), rows.integer(i, 1), static_cast<Version>(rows.integer(i, 2))});
  }
  return frontiers;
}

// Whoever loads a million rows by SQL gets them done piece by piece. The first row is among them, whatever
// its size.
InboxWindow FeedReads::read_inbox() {
  constexpr std::size_t kRows = 5000, kBytes = std::size_t{16} << 20;
  InboxWindow inbox;
  CopyReader reader(
      connection_,
      "COPY (SELECT id, op, db, key, field, value, expire_at, (extract(epoch FROM at) * 1000)::bigint FROM "
      "(SELECT *, sum(length(key) + "
      "coalesce(length(field), 0) + coalesce(length(value), 0)) OVER (ORDER BY id ROWS BETWEEN UNBOUNDED "
      "PRECEDING AND 1 PRECEDING) AS before FROM (SELECT * FROM isthmus.inbox ORDER BY id LIMIT " +
          std::to_string(kRows) + ") first) piece WHERE coalesce(before, 0) < " + std::to_string(kBytes) +
          " ORDER BY id) TO STDOUT (FORMAT binary)");
  std::size_t bytes = 0;
  while (reader.next()) {
    InboxRow& row = inbox.rows.emplace_back();
    row.id = reader->integer(0);
    row.op = reader->bytes(1);
    row.db = checked_database(reader->integer(2));
    row.key = reader->bytes(3);
    row.field = reader->bytes(4);
    row.value = reader->bytes(5);
    row.expire_at = integer_or_none(reader, 6);
    row.at = reader->integer(7);
    bytes += row.key.size() + row.field.size() + row.value.size();
  }
  inbox.more = inbox.rows.size() == kRows || bytes >= kBytes;
  return inbox;
}

}  // namespace isthmus::backend
