#include "backend/postgresql_connection.hpp"

#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include <libpq-fe.h>
#include <poll.h>

#include "backend/big_endian.hpp"

namespace isthmus::backend {
namespace {

/// What is added to the connection string unless it says so itself. A dropped link is noticed in under 3 s
/// (one idle second, two unanswered probes a second apart; or 2.5 s of unacknowledged data).
constexpr std::array<std::pair<const char*, const char*>, 7> kDefaults = {{
    {"connect_timeout", "3"},  // seconds, for each host
    {"keepalives", "1"},
    {"keepalives_idle", "1"},          // seconds
    {"keepalives_interval", "1"},      // seconds
    {"keepalives_count", "2"},         // probes
    {"tcp_user_timeout", "2500"},      // milliseconds
    {"fallback_application_name", ""}  // filled in
}};

/// So much of a COPY is handed to libpq before it must have gone to the kernel.
constexpr std::size_t kCopyPiece = 256U << 10U;

constexpr std::string_view kSchemes[] = {"postgresql://", "postgres://"};

/// How often who waits looks whether the session is still needed.
constexpr std::chrono::milliseconds kGiveUpPeriod{100};

using Clock = std::chrono::steady_clock;

/// PostgreSQL's messages have several lines (DETAIL, HINT, one for each host): ours have one.
std::string one_line(const char* message) {
  std::string line;
  for (const char* c = message == nullptr ? "" : message; *c != '\0'; ++c) {
    if (*c != '\n' && *c != '\r' && *c != '\t') {
      line.push_back(*c);
    } else if (!line.empty() && line.back() != ' ') {
      line.push_back(' ');
    }
  }
  while (!line.empty() && line.back() == ' ') line.pop_back();
  return line.empty() ? "no reason given" : line;
}

bool is_uri(std::string_view url) { return url.starts_with(kSchemes[0]) || url.starts_with(kSchemes[1]); }

struct Options {
  explicit Options(PQconninfoOption* parsed) : list(parsed, &PQconninfoFree) {}
  std::string value(std::string_view keyword) const {
    for (const PQconninfoOption* option = list.get(); option != nullptr && option->keyword != nullptr;
         ++option) {
      if (keyword == option->keyword && option->val != nullptr) return option->val;
    }
    return {};
  }
  std::unique_ptr<PQconninfoOption, void (*)(PQconninfoOption*)> list;
};

/// What the string says. libpq's own message is dropped, since it repeats parts of the string.
Options parse(const std::string& conninfo) {
  char* message = nullptr;
  Options options(PQconninfoParse(conninfo.c_str(), &message));
  PQfreemem(message);
  if (options.list) return options;
  throw PgError(
      "libpq cannot read this connection string: check its keywords, and write special characters of a URI "
      "(in the password too) as %XX",
      "", false);
}

/// A value of the string, or else of libpq's environment variables and defaults.
std::string value_or_default(const Options& said, const Options& defaults, std::string_view keyword) {
  const std::string value = said.value(keyword);
  return value.empty() ? defaults.value(keyword) : value;
}

std::int64_t decode_integer(std::string_view bytes) {
  switch (bytes.size()) {
    case 2:
      return static_cast<std::int16_t>(load_big_endian<std::uint16_t>(bytes.data()));
    case 4:
      return static_cast<std::int32_t>(load_big_endian<std::uint32_t>(bytes.data()));
    case 8:
      return static_cast<std::int64_t>(load_big_endian<std::uint64_t>(bytes.data()));
    default:
      return 0;
  }
}

}  // namespace

// ---- strings ----

bool is_postgresql_url(std::string_view url) {
  if (is_uri(url)) return true;
  const std::size_t equals = url.find('=');
  if (equals == 0 || equals == std::string_view::npos) return false;
  for (const char c : url.substr(0, equals)) {
    if (std::islower(static_cast<unsigned char>(c)) == 0 && c != '_' && c != ' ') return false;
  }
  return true;
}

void check_conninfo(const std::string& conninfo) {
  const Options options = parse(conninfo);
  constexpr const char* kMisplaced =
      "the connection string has an '@', ':' or '/' where none belongs: write these characters of a password "
      "as %40, %3A and %2F";
  // Such a URI parses, but with parts of the password as port or database, which messages show.
  if (is_uri(conninfo)) {
    const std::size_t path = conninfo.find('/', conninfo.find("//") + 2);
    const std::string rest =
        path == std::string::npos ? "" : conninfo.substr(path, conninfo.find('?', path) - path);
    if (rest.find('@') != std::string::npos) throw PgError(kMisplaced, "", false);
  }
  if (options.value("port").find_first_not_of("0123456789,") != std::string::npos ||
      options.value("host").find('@') != std::string::npos) {
    throw PgError(kMisplaced, "", false);
  }
}

std::string complete_conninfo(const std::string& conninfo,
                              const std::vector<std::pair<const char*, const char*>>& defaults) {
  check_conninfo(conninfo);
  const Options said = parse(conninfo);
  std::string result;
  const auto put = [&](const char* keyword, std::string_view value) {
    if (!result.empty()) result += ' ';
    result.append(keyword).append("='");
    for (const char c : value) {
      if (c == '\'' || c == '\\') result += '\\';
      result += c;
    }
    result += '\'';
  };
  for (const PQconninfoOption* option = said.list.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) put(option->keyword, option->val);
  }
  for (const auto& [keyword, value] : defaults) {
    if (said.value(keyword).empty()) put(keyword, value);
  }
  return result;
}

std::string describe_conninfo(const std::string& conninfo) {
  const Options said = parse(conninfo);
  const Options defaults(PQconndefaults());
  const auto value = [&](std::string_view keyword) { return value_or_default(said, defaults, keyword); };
  std::string host = value("host");
  if (host.empty()) host = value("hostaddr");
  const std::string service = value("service");
  if (host.empty() && !service.empty()) return "postgresql://?service=" + service;
  std::string database = value("dbname");
  if (database.empty()) database = value("user");
  const std::string port = value("port");
  if (host.empty() || host.front() == '/' || host.front() == '@') {
    return "postgresql:///" + database + (host.empty() ? "?" : "?host=" + host + "&") + "port=" + port;
  }
  if (host.find(',') == std::string::npos) return "postgresql://" + host + ":" + port + "/" + database;
  // Several hosts have one port for all of them, or one each.
  std::string places;
  std::size_t from_host = 0, from_port = 0;
  while (from_host <= host.size()) {
    const std::size_t host_end = std::min(host.find(',', from_host), host.size());
    const std::size_t port_end = std::min(port.find(',', from_port), port.size());
    if (!places.empty()) places += ',';
    places +=
        host.substr(from_host, host_end - from_host) + ":" + port.substr(from_port, port_end - from_port);
    from_host = host_end + 1;
    if (port_end < port.size()) from_port = port_end + 1;
  }
  return "postgresql://" + places + "/" + database;
}

// ---- results ----

void PgResult::clear(pg_result* result) { PQclear(result); }
int PgResult::rows() const { return PQntuples(result_.get()); }
int PgResult::columns() const { return PQnfields(result_.get()); }
bool PgResult::is_null(int row, int column) const { return PQgetisnull(result_.get(), row, column) != 0; }

std::string_view PgResult::bytes(int row, int column) const {
  return {PQgetvalue(result_.get(), row, column),
          static_cast<std::size_t>(PQgetlength(result_.get(), row, column))};
}

std::int64_t PgResult::integer(int row, int column) const {
  if (is_null(row, column)) return 0;
  if (PQfformat(result_.get(), column) == 1) return decode_integer(bytes(row, column));
  return std::strtoll(PQgetvalue(result_.get(), row, column), nullptr, 10);
}

bool PgResult::boolean(int row, int column) const {
  const std::string_view value = bytes(row, column);
  return value == "t" || value == std::string_view("\1", 1);
}

std::uint64_t PgResult::affected() const {
  return std::strtoull(PQcmdTuples(const_cast<PGresult*>(result_.get())), nullptr, 10);
}

// ---- parameters ----

PgArray::PgArray(PgType element) : element_(element) { clear(); }

void PgArray::clear() {
  // Dimensions, whether there are NULLs, element type, length, lower bound: 20 bytes, filled in by data().
  data_.assign(20, '\0');
  count_ = 0;
  has_null_ = false;
}

void PgArray::add(std::int64_t value) {
  ++count_;
  switch (element_) {
    case PgType::int2:
      append_big_endian<std::uint32_t>(data_, 2);
      append_big_endian(data_, static_cast<std::uint16_t>(value));
      break;
    case PgType::boolean:
      append_big_endian<std::uint32_t>(data_, 1);
      data_.push_back(value != 0 ? '\1' : '\0');
      break;
    default:
      append_big_endian<std::uint32_t>(data_, 8);
      append_big_endian(data_, static_cast<std::uint64_t>(value));
  }
}

void PgArray::add(std::string_view value) {
  ++count_;
  append_big_endian(data_, static_cast<std::uint32_t>(value.size()));
  data_.append(value);
}

void PgArray::add_null() {
  ++count_;
  has_null_ = true;
  append_big_endian<std::uint32_t>(data_, 0xFFFFFFFFU);
}

std::string_view PgArray::data() {
  store_big_endian<std::uint32_t>(&data_[0], count_ == 0 ? 0 : 1);
  store_big_endian<std::uint32_t>(&data_[4], has_null_ ? 1 : 0);
  store_big_endian(&data_[8], static_cast<std::uint32_t>(element_));
  store_big_endian<std::uint32_t>(&data_[12], count_);
  store_big_endian<std::uint32_t>(&data_[16], 1);
  // An empty array ends behind the element type.
  return count_ == 0 ? std::string_view(data_).substr(0, 12) : std::string_view(data_);
}

PgParams& PgParams::push(std::uint32_t type, std::string owned) {
  params_.push_back({type, false, std::move(owned), {}});
  return *this;
}

PgParams& PgParams::add(std::int64_t value) {
  std::string bytes;
  append_big_endian(bytes, static_cast<std::uint64_t>(value));
  return push(static_cast<std::uint32_t>(PgType::int8), std::move(bytes));
}

PgParams& PgParams::add_text(std::string_view value) {
  return push(static_cast<std::uint32_t>(PgType::text), std::string(value));
}

PgParams& PgParams::add_bytes(std::string_view value) {
  return push(static_cast<std::uint32_t>(PgType::bytea), std::string(value));
}

PgParams& PgParams::add_null(PgType type) {
  params_.push_back({static_cast<std::uint32_t>(type), true, {}, {}});
  return *this;
}

PgParams& PgParams::add(PgArray& array) {
  // The array types of the element types above.
  static constexpr std::pair<PgType, std::uint32_t> kArrays[] = {{PgType::boolean, 1000},
                                                                 {PgType::bytea, 1001},
                                                                 {PgType::int2, 1005},
                                                                 {PgType::text, 1009},
                                                                 {PgType::int8, 1016}};
  std::uint32_t type = 0;
  for (const auto& [element, of] : kArrays) {
    if (element == array.element()) type = of;
  }
  params_.push_back({type, false, {}, array.data()});
  return *this;
}

// ---- the session ----

void PgConnection::finish(pg_conn* connection) { PQfinish(connection); }
void PgConnection::free_piece(char* piece) { PQfreemem(piece); }

PgConnection::PgConnection(const std::string& conninfo, PgConnectOptions options)
    : options_(std::move(options)) {
  check_conninfo(conninfo);
  const Options said = parse(conninfo);
  std::vector<const char*> keywords, values;
  const auto put = [&](const char* keyword, const char* value) {
    keywords.push_back(keyword);
    values.push_back(value);
  };
  for (const PQconninfoOption* option = said.list.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) put(option->keyword, option->val);
  }
  for (const auto& [keyword, value] : kDefaults) {
    if (said.value(keyword).empty()) put(keyword, *value != '\0' ? value : options_.application_name.c_str());
  }
  put("client_encoding", "UTF8");
  if (options_.replication) put("replication", "database");
  if (said.value("host").find(',') != std::string::npos && said.value("target_session_attrs").empty()) {
    put("target_session_attrs", "read-write");
  }
  put(nullptr, nullptr);
  connection_.reset(PQconnectdbParams(keywords.data(), values.data(), 0));
  if (!connection_) throw std::bad_alloc();
  if (PQstatus(connection_.get()) != CONNECTION_OK) lost(PQerrorMessage(connection_.get()));
  const auto is_on = [this](const char* parameter) {
    const char* value = PQparameterStatus(connection_.get(), parameter);
    return value != nullptr && std::strcmp(value, "on") == 0;
  };
  if (is_on("in_hot_standby")) {
    lost("this is a read-only standby: name the primary, or all hosts of the cluster separated by commas");
  }
  if (is_on("default_transaction_read_only")) {
    lost("sessions are read-only here: set default_transaction_read_only to off for this role or database");
  }
  PQsetnonblocking(connection_.get(), 1);
  // Notices go nowhere: what matters comes as an error.
  PQsetNoticeProcessor(
      connection_.get(), [](void*, const char*) {}, nullptr);
  if (!options_.replication) override_settings();
}

// Limits of the role or the database are made for applications. Ours are the waits of each call. And what is
// acknowledged here is on the disk: `local` and what is above it may be chosen for all, `off` may not.
// (A version without the second limit is refused with better words.)
void PgConnection::override_settings() {
  if (server_version() < 140000) return;
  std::string sql =
      "SET statement_timeout = 0; SET idle_session_timeout = 0; "
      "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = "
      "'off'";
  if (server_version() >= 170000) sql += "; SET transaction_timeout = 0";
  exec(sql);
}

void PgConnection::lost(const std::string& why) { throw PgError(one_line(why.c_str()), "", true); }

void PgConnection::fail(const pg_result* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  std::string text = one_line(message != nullptr ? message : PQresultErrorMessage(result));
  if (const char* detail = PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL); detail != nullptr) {
    text += " (" + one_line(detail) + ")";
  }
  // A backend that was told to end says so and goes: class 57P (src/backend/utils/errcodes.txt).
  const bool gone =
      PQstatus(connection_.get()) != CONNECTION_OK || state == nullptr || std::strncmp(state, "57P", 3) == 0;
  throw PgError(text, state == nullptr ? "" : state, gone);
}

void PgConnection::wait(bool for_write) {
  const Clock::time_point deadline = Clock::now() + options_.statement_wait;
  pollfd descriptor{PQsocket(connection_.get()), static_cast<short>(POLLIN | (for_write ? POLLOUT : 0)), 0};
  for (;;) {
    auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    left = std::max(left, std::chrono::milliseconds{0});
    const auto slice = options_.give_up != nullptr ? std::min(left, kGiveUpPeriod) : left;
    const int ready = ::poll(&descriptor, 1, static_cast<int>(slice.count()));
    if (options_.give_up != nullptr && options_.give_up->load()) {
      connection_.reset();
      lost("given up, as it is not needed any more");
    }
    if (ready > 0) break;
    if (ready == 0 && slice == left) {
      // Closed at once, so that nothing of it can be answered later.
      connection_.reset();
      lost("PostgreSQL has not answered for " + std::to_string(options_.statement_wait.count()) + " ms");
    }
    if (ready < 0 && errno != EINTR) lost(std::strerror(errno));
  }
  if ((descriptor.revents & ~POLLOUT) != 0 && PQconsumeInput(connection_.get()) == 0) {
    lost(PQerrorMessage(connection_.get()));
  }
}

void PgConnection::flush() {
  if (!connection_) lost("the session was closed");
  for (;;) {
    const int state = PQflush(connection_.get());
    if (state == 0) return;
    if (state < 0) lost(PQerrorMessage(connection_.get()));
    wait(true);
  }
}

pg_result* PgConnection::next_result() {
  flush();
  while (PQisBusy(connection_.get()) != 0) wait(false);
  return PQgetResult(connection_.get());
}

/// Takes all answers of what was sent: the last one, or the first error.
PgResult PgConnection::collect() {
  PgResult last;
  std::optional<PgError> error;
  while (pg_result* result = next_result()) {
    PgResult owner(result);
    switch (PQresultStatus(result)) {
      case PGRES_TUPLES_OK:
      case PGRES_COMMAND_OK:
      case PGRES_EMPTY_QUERY:
      case PGRES_SINGLE_TUPLE:
        last = std::move(owner);
        break;
      case PGRES_COPY_IN:
      case PGRES_COPY_OUT:
      case PGRES_COPY_BOTH:
        throw std::logic_error("a COPY was begun by a call that cannot go on with it");
      default:
        try {
          if (!error) fail(result);
        } catch (const PgError& failed) {
          error = failed;
        }
        if (PQstatus(connection_.get()) != CONNECTION_OK) throw *error;
    }
  }
  if (error) throw *error;
  return last;
}

PgResult PgConnection::exec(const std::string& sql) {
  send(sql);
  return collect();
}

PgResult PgConnection::exec(const std::string& sql, const PgParams& params) {
  std::vector<Oid> types;
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
  for (const PgParams::Param& param : params.params_) {
    const std::string_view bytes =
        param.borrowed.data() != nullptr ? param.borrowed : std::string_view(param.owned);
    types.push_back(param.type);
    values.push_back(param.null ? nullptr : bytes.data());
    lengths.push_back(static_cast<int>(bytes.size()));
    formats.push_back(1);
  }
  if (!connection_) lost("the session was closed");
  if (PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(types.size()), types.data(),
                        values.data(), lengths.data(), formats.data(), 1) == 0) {
    lost(PQerrorMessage(connection_.get()));
  }
  return collect();
}

void PgConnection::prepare(const std::string& name, const std::string& sql) {
  if (!connection_) lost("the session was closed");
  if (PQsendPrepare(connection_.get(), name.c_str(), sql.c_str(), 0, nullptr) == 0) {
    lost(PQerrorMessage(connection_.get()));
  }
  collect();
}

void PgConnection::exec_prepared(const std::string& name, const std::vector<const char*>& values,
                                 const std::vector<int>& lengths) {
  if (!connection_) lost("the session was closed");
  const std::vector<int> formats(values.size(), 1);
  if (PQsendQueryPrepared(connection_.get(), name.c_str(), static_cast<int>(values.size()), values.data(),
                          lengths.data(), formats.data(), 1) == 0) {
    lost(PQerrorMessage(connection_.get()));
  }
  collect();
}

void PgConnection::send(const std::string& sql) {
  if (!connection_) lost("the session was closed");
  if (PQsendQuery(connection_.get(), sql.c_str()) == 0) lost(PQerrorMessage(connection_.get()));
  flush();
}

bool PgConnection::finished() {
  if (!connection_) lost("the session was closed");
  if (PQconsumeInput(connection_.get()) == 0) lost(PQerrorMessage(connection_.get()));
  if (PQisBusy(connection_.get()) != 0) return false;
  collect();
  return true;
}

// ---- COPY ----

void PgConnection::expect_copy(int status, const char* what) {
  for (;;) {
    pg_result* result = next_result();
    if (result == nullptr) throw std::logic_error(std::string("no ") + what + " was begun");
    PgResult owner(result);
    const int got = PQresultStatus(result);
    if (got == status) return;
    if (got == PGRES_COMMAND_OK || got == PGRES_TUPLES_OK) continue;
    try {
      fail(result);
    } catch (const PgError& error) {
      if (!error.connection_lost) collect();
      throw;
    }
  }
}

void PgConnection::await_copy_in() { expect_copy(PGRES_COPY_IN, "COPY FROM STDIN"); }

void PgConnection::copy_in(std::string_view bytes) {
  if (!connection_) lost("the session was closed");
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kCopyPiece);
    const int taken = PQputCopyData(connection_.get(), piece.data(), static_cast<int>(piece.size()));
    if (taken < 0) lost(PQerrorMessage(connection_.get()));
    if (taken == 1) bytes.remove_prefix(piece.size());
    // Small ones leave together with the end of the COPY.
    if (taken == 0 || !bytes.empty() || piece.size() == kCopyPiece) flush();
  }
}

void PgConnection::end_copy_in() {
  if (!connection_) lost("the session was closed");
  int ended = 0;
  while ((ended = PQputCopyEnd(connection_.get(), nullptr)) == 0) flush();
  if (ended < 0) lost(PQerrorMessage(connection_.get()));
  collect();
}

void PgConnection::cancel_copy_in(const std::string& why) {
  if (!connection_) lost("the session was closed");
  if (PQputCopyEnd(connection_.get(), why.c_str()) < 0) lost(PQerrorMessage(connection_.get()));
  try {
    collect();
  } catch (const PgError& error) {
    if (error.connection_lost) throw;
  }
}

void PgConnection::begin_copy_out(const std::string& sql) {
  send(sql);
  expect_copy(PGRES_COPY_OUT, "COPY TO STDOUT");
}

bool PgConnection::copy_out(std::string_view& piece) {
  if (!connection_) lost("the session was closed");
  for (;;) {
    char* bytes = nullptr;
    const int size = PQgetCopyData(connection_.get(), &bytes, 1);
    piece_.reset(bytes);
    if (size > 0) {
      piece = {bytes, static_cast<std::size_t>(size)};
      return true;
    }
    if (size < 0) {
      // At the end, or after an error that the answers below tell.
      collect();
      return false;
    }
    wait(false);
  }
}

// ---- facts ----

int PgConnection::backend_pid() const { return PQbackendPID(connection_.get()); }
int PgConnection::server_version() const { return PQserverVersion(connection_.get()); }

std::string PgConnection::literal(std::string_view text) const {
  char* quoted = PQescapeLiteral(connection_.get(), text.data(), text.size());
  if (quoted == nullptr) throw PgError(one_line(PQerrorMessage(connection_.get())), "22021", false);
  std::string result(quoted);
  PQfreemem(quoted);
  return result;
}

}  // namespace isthmus::backend
