// What the tests of the backends share: temporary folders, rows, a sink that keeps what it gets, and a model
// of the state.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/log.hpp"
#include "backend/sqlite_connection.hpp"

namespace isthmus::backend::test {

/// A folder that is removed with all it holds.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string path(const std::string& name = "isthmus.db") const { return (folder_ / name).string(); }
  std::string url(const std::string& name = "isthmus.db") const { return "sqlite:" + path(name); }
  /// Names and contents of all files.
  std::map<std::string, std::string> contents() const;

 private:
  std::filesystem::path folder_;
};

std::string read_file(const std::string& path);
void write_file(const std::string& path, std::string_view contents);

/// Runs SQL as another program would.
void run_sql(const std::string& path, const std::string& sql);
std::int64_t query_integer(const std::string& path, const std::string& sql);
/// Each result row as its columns, joined by '|' as sqlite3 prints them; NULL is empty.
std::vector<std::string> query_lines(const std::string& path, const std::string& sql);

/// A row that owns its bytes.
struct OwnedRow {
  OwnedRow() = default;
  explicit OwnedRow(const Row& other)
      : row(other),
        key(other.key),
        field(other.field),
        value(other.value),
        event(other.event),
        reply(other.reply) {}
  /// The row with views of this object's bytes.
  Row view() const;
  Row row;
  std::string key, field, value, event, reply;
};

inline constexpr SiteId kSite = 7;
inline constexpr OriginId kOrigin = 1000;

/// A row of db 0, site kSite and origin kOrigin. Its views are those of the arguments.
Row make_row(Seq seq, RowKind kind, std::string_view key = {}, std::string_view field = {},
             std::string_view value = {});

RowBatch make_batch(const std::vector<Row>& rows);
/// A hash of the checkpoint, of db 0 and site kSite, without its fields.
StoredKey hash_key(const std::string& name, Version version);

/// One of every kind that says something of the state, each a thing that only some rows say. Their views live
/// for ever.
std::vector<Row> changes_of_all_kinds();

/// Keeps what a log loads.
struct Recorder : LoadSink {
  void key(const StoredKey& stored) override { keys.push_back(stored); }
  void field(const StoredField& stored) override { fields.push_back(stored); }
  void row(const Row& stored) override { rows.emplace_back(stored); }
  std::vector<StoredKey> keys;
  std::vector<StoredField> fields;
  std::vector<OwnedRow> rows;
};

/// All that a log holds, read by a new connection of the backend.
Recorder load(const std::string& url);

/// The state as the rules of merging define it, computed in the plainest way: a list of facts, and a look at
/// all of them for each question.
class Model : public LoadSink {
 public:
  using Stamp = std::pair<Version, SiteId>;
  /// (db, key, type, field) and (value, deadline).
  using State = std::map<std::tuple<int, std::string, std::string, std::string>,
                         std::pair<std::string, std::optional<std::int64_t>>>;

  void key(const StoredKey& stored) override;
  void field(const StoredField& stored) override;
  void row(const Row& row) override;

  /// What a client sees at `now_ms`.
  State visible(std::int64_t now_ms) const;
  /// The checkpoint of all facts.
  CheckpointChunk checkpoint() const;

 private:
  enum class What { string, hash, field, set, member, cut, deadline, flush };
  struct Fact {
    What what;
    int db;
    std::string key, field;
    Stamp stamp;
    std::optional<std::string> value;
    std::optional<std::int64_t> expire_at;
  };
  struct KeyState {
    Stamp cut{0, 0}, string_stamp{0, 0}, hash_stamp{0, 0}, set_stamp{0, 0}, deadline_stamp{0, 0};
    std::string value;
    std::optional<std::int64_t> expire_at;
    std::map<std::string, std::pair<Stamp, std::optional<std::string>>> fields;
    std::map<std::string, std::pair<Stamp, bool>> members;  // all of one site: the last row says what is
  };
  std::map<std::pair<int, std::string>, KeyState> fold() const;

  std::vector<Fact> facts_;
  std::set<std::pair<int, std::string>> sets_;  // of a checkpoint: their fields are members
};

}  // namespace isthmus::backend::test
