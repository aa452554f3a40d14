// What the tests of the backends share: temporary folders, rows, a sink that keeps what it gets, and a model
// of the state.
#include "tests/backend/support.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace isthmus::backend::test {

namespace fs = std::filesystem;

TempFolder::TempFolder() {
  std::string name = (fs::temp_directory_path() / "isthmus-backend-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
  folder_ = name;
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  fs::remove_all(folder_, ignored);
}

std::map<std::string, std::string> TempFolder::contents() const {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
    files[entry.path().string()] = entry.is_regular_file() ? read_file(entry.path().string()) : "";
  }
  return files;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string& path, std::string_view contents) {
  std::ofstream(path, std::ios::binary) << contents;
}

void run_sql(const std::string& path, const std::string& sql) {
  Connection(path, Connection::Mode::create).execute(sql);
}

std::int64_t query_integer(const std::string& path, const std::string& sql) {
  return Connection(path, Connection::Mode::existing).query_integer(sql, -1);
}

std::vector<std::string> query_lines(const std::string& path, const std::string& sql) {
  const Connection connection(path, Connection::Mode::existing);
  Statement statement = connection.prepare(sql);
  std::vector<std::string> lines;
  while (statement.step()) {
    std::string line;
    for (int column = 0; column < statement.columns(); ++column) {
      line += (column == 0 ? "" : "|") + std::string(statement.bytes(column));
    }
    lines.push_back(line);
  }
  return lines;
}

Row OwnedRow::view() const {
  Row copy = row;
  copy.key = key;
  copy.field = field;
  copy.value = value;
  copy.event = event;
  copy.reply = reply;
  return copy;
}

Row make_row(Seq seq, RowKind kind, std::string_view key, std::string_view field, std::string_view value) {
  Row row;
  row.site = kSite;
  row.origin = kOrigin;
  row.seq = seq;
  row.version = seq;
  row.kind = kind;
  row.key = key;
  row.field = field;
  row.value = value;
  return row;
}

std::vector<Row> changes_of_all_kinds() {
  std::vector<Row> rows;
  for (Seq seq = 1; seq <= static_cast<Seq>(RowKind::flush) + 1; ++seq) {
    const auto kind = static_cast<RowKind>(seq - 1);
    const RowParts parts = row_parts(kind);
    Row row = make_row(seq, kind, parts.key ? std::string_view("key\0 ,+", 7) : std::string_view(),
                       parts.field ? "field" : "", parts.value ? "+1,2 \xFF" : "");
    row.version = 1'000'000 + seq * 65536;
    if (is_count(kind)) row.count = {999'999, 8, 1001, -5};
    if (kind == RowKind::srem) row.count.base_version = 77;
    rows.push_back(row);
  }
  rows[0].expire_at = -1;
  rows[0].event = "set,expire";
  rows[1].db = 15;
  rows[2].group_end = false;
  rows[3].requester = 17;
  rows[3].request = 4;
  rows[3].reply = "*1\r\n$3\r\n + \r\n";
  rows[4].version = 7;  // older than the first one
  return rows;
}

StoredKey hash_key(const std::string& name, Version version) {
  StoredKey key;
  key.key = name;
  key.type = StoredType::hash;
  key.version = version;
  key.site = kSite;
  return key;
}

RowBatch make_batch(const std::vector<Row>& rows) {
  RowBatch batch;
  for (const Row& row : rows) batch.append(row);
  return batch;
}

Recorder load(const std::string& url) {
  Recorder recorder;
  open_log(url)->load(recorder);
  return recorder;
}

void Model::key(const StoredKey& stored) {
  const Stamp stamp{stored.version, stored.site};
  if (stored.type == StoredType::string) {
    facts_.push_back({What::string, stored.db, stored.key, "", stamp, stored.value, {}});
  }
  if (stored.type == StoredType::hash)
    facts_.push_back({What::hash, stored.db, stored.key, "", stamp, {}, {}});
  if (stored.type == StoredType::set) {
    sets_.insert({stored.db, stored.key});
    facts_.push_back({What::set, stored.db, stored.key, "", stamp, {}, {}});
  }
  facts_.push_back({What::cut, stored.db, stored.key, "", {stored.cut_version, stored.cut_site}, {}, {}});
  facts_.push_back({What::deadline,
                    stored.db,
                    stored.key,
                    "",
                    {stored.expire_version, stored.expire_site},
                    {},
                    stored.expire_at});
}

void Model::field(const StoredField& stored) {
  std::optional<std::string> value;
  if (!stored.deleted) value = stored.value;
  facts_.push_back({sets_.contains({stored.db, stored.key}) ? What::member : What::field,
                    stored.db,
                    stored.key,
                    stored.field,
                    {stored.version, stored.site},
                    std::move(value),
                    {}});
}

void Model::row(const Row& row) {
  const auto add = [&](What what, std::optional<std::string> value, std::optional<std::int64_t> expire_at) {
    facts_.push_back({what,
                      row.db,
                      std::string(row.key),
                      what == What::field || what == What::member ? std::string(row.field) : "",
                      {row.version, row.site},
                      std::move(value),
                      expire_at});
  };
  switch (row.kind) {
    case RowKind::set:
      add(What::cut, {}, {});
      add(What::deadline, {}, row.expire_at);
      [[fallthrough]];
    case RowKind::update:
      add(What::string, std::string(row.value), {});
      break;
    case RowKind::hcreate:
      add(What::deadline, {}, {});
      [[fallthrough]];
    case RowKind::hset:
      add(What::field, std::string(row.value), {});
      break;
    case RowKind::hdel:
      add(What::field, {}, {});
      break;
    case RowKind::screate:
      add(What::deadline, {}, {});
      [[fallthrough]];
    case RowKind::sadd:
      add(What::member, "", {});
      break;
    case RowKind::srem:
      add(What::member, {}, {});
      break;
    case RowKind::del:
      add(What::cut, {}, {});
      add(What::deadline, {}, {});
      break;
    case RowKind::expire:
      add(What::deadline, {}, row.expire_at);
      break;
    case RowKind::flush:
      add(What::flush, {}, {});
      break;
    case RowKind::publish:
    case RowKind::spublish:
    case RowKind::lease:
    case RowKind::incr:  // from here on of linked sites: tests of their own look at them
    case RowKind::hincr:
    case RowKind::htype:
    case RowKind::stype:
    case RowKind::frontier:
    case RowKind::reach:
    case RowKind::subscribers:
      break;
  }
}

std::map<std::pair<int, std::string>, Model::KeyState> Model::fold() const {
  std::map<int, Stamp> flushes;
  std::map<std::pair<int, std::string>, KeyState> keys;
  for (const Fact& fact : facts_) {
    if (fact.what == What::flush) {
      flushes[fact.db] = std::max(flushes[fact.db], fact.stamp);
      continue;
    }
    KeyState& state = keys[{fact.db, fact.key}];
    if (fact.what == What::cut) state.cut = std::max(state.cut, fact.stamp);
    if (fact.what == What::hash) state.hash_stamp = std::max(state.hash_stamp, fact.stamp);
    if (fact.what == What::set || fact.what == What::member)
      state.set_stamp = std::max(state.set_stamp, fact.stamp);
    if (fact.what == What::member) {
      auto& member = state.members[fact.field];
      if (fact.stamp > member.first) member = {fact.stamp, fact.value.has_value()};
    }
    if (fact.what == What::string && fact.stamp > state.string_stamp) {
      state.string_stamp = fact.stamp;
      state.value = fact.value.value();
    }
    if (fact.what == What::deadline && fact.stamp > state.deadline_stamp) {
      state.deadline_stamp = fact.stamp;
      state.expire_at = fact.expire_at;
    }
    if (fact.what == What::field) {
      state.hash_stamp = std::max(state.hash_stamp, fact.stamp);
      auto& field = state.fields[fact.field];
      if (fact.stamp > field.first) field = {fact.stamp, fact.value};
    }
  }
  for (auto& [name, state] : keys) {
    const Stamp flush = flushes[name.first];
    state.cut = std::max(state.cut, flush);
    if (flush > state.deadline_stamp) {
      state.deadline_stamp = flush;
      state.expire_at.reset();
    }
  }
  return keys;
}

Model::State Model::visible(std::int64_t now_ms) const {
  State seen;
  for (const auto& [name, state] : fold()) {
    if (state.expire_at && *state.expire_at <= now_ms) continue;
    if (state.string_stamp > Stamp{0, 0} && state.string_stamp >= state.cut &&
        state.string_stamp > std::max(state.hash_stamp, state.set_stamp)) {
      seen[{name.first, name.second, "string", ""}] = {state.value, state.expire_at};
    }
    for (const auto& [field, cell] : state.fields) {
      if (!cell.second || cell.first < state.cut ||
          cell.first < std::max(state.string_stamp, state.set_stamp))
        continue;
      seen[{name.first, name.second, "hash", field}] = {*cell.second, state.expire_at};
    }
    for (const auto& [member, cell] : state.members) {
      if (!cell.second || cell.first < state.cut ||
          cell.first < std::max(state.string_stamp, state.hash_stamp))
        continue;
      seen[{name.first, name.second, "set", member}] = {"", state.expire_at};
    }
  }
  return seen;
}

CheckpointChunk Model::checkpoint() const {
  CheckpointChunk chunk;
  for (const auto& [name, state] : fold()) {
    StoredKey key;
    key.db = static_cast<std::uint8_t>(name.first);
    key.key = name.second;
    std::tie(key.cut_version, key.cut_site) = state.cut;
    std::tie(key.expire_version, key.expire_site) = state.deadline_stamp;
    key.expire_at = state.expire_at;
    // A field that died by a change of type leaves no trace in the checkpoint but its absence.
    key.replace_fields = true;
    const Stamp top = std::max({state.string_stamp, state.hash_stamp, state.set_stamp});
    if (top > Stamp{0, 0} && top >= state.cut) {
      std::tie(key.version, key.site) = top;
      key.type = top == state.string_stamp ? StoredType::string
                 : top == state.hash_stamp ? StoredType::hash
                                           : StoredType::set;
      if (key.type == StoredType::string) key.value = state.value;
    }
    chunk.keys.push_back(key);
    for (const auto& [field, cell] : state.fields) {
      if (cell.first < state.cut || cell.first < std::max(state.string_stamp, state.set_stamp)) continue;
      chunk.fields.push_back({key.db, key.key, field, cell.second.value_or(""), cell.first.first,
                              cell.first.second, "", !cell.second.has_value(), false});
    }
    for (const auto& [member, cell] : state.members) {
      if (cell.first < state.cut || cell.first < std::max(state.string_stamp, state.hash_stamp)) continue;
      chunk.fields.push_back(
          {key.db, key.key, member, "", cell.first.first, cell.first.second, "", !cell.second, false});
    }
  }
  return chunk;
}

}  // namespace isthmus::backend::test
