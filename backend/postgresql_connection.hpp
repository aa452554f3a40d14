// A session on PostgreSQL by libpq: connecting, statements, and a deadline on every wait.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// libpq's own types, so that whoever includes this needs no libpq-fe.h.
struct pg_conn;
struct pg_result;

namespace isthmus::backend {

/// What PostgreSQL or the way to it refused. `what()` is one line, never with a password in it.
struct PgError : std::runtime_error {
  PgError(const std::string& what, std::string state, bool lost)
      : std::runtime_error(what), sqlstate(std::move(state)), connection_lost(lost) {}
  /// Five characters, or empty where PostgreSQL said none.
  std::string sqlstate;
  /// The session is gone: what was sent last may have been done or not.
  bool connection_lost;
  /// Whether the SQLSTATE belongs to this class (its first two characters).
  bool in_class(std::string_view two) const { return sqlstate.starts_with(two); }
};

/// The answer to a statement. Values are in PostgreSQL's binary format if the statement had parameters, else
/// in text. Owns its memory.
class PgResult {
 public:
  PgResult() = default;
  explicit PgResult(pg_result* result) : result_(result, &clear) {}
  int rows() const;
  int columns() const;
  bool is_null(int row, int column) const;
  /// The bytes as they came: of a text or bytea in binary format, the value; views live as long as the
  /// result.
  std::string_view bytes(int row, int column) const;
  std::string string(int row, int column) const { return std::string(bytes(row, column)); }
  /// A smallint, integer or bigint in either format; 0 if NULL.
  std::int64_t integer(int row, int column) const;
  bool boolean(int row, int column) const;
  /// Rows that the statement inserted, updated or deleted.
  std::uint64_t affected() const;

 private:
  static void clear(pg_result* result);
  std::unique_ptr<pg_result, void (*)(pg_result*)> result_{nullptr, &clear};
};

/// The types of parameters that we use, by their OIDs (src/include/catalog/pg_type.dat, never changed).
enum class PgType : std::uint32_t { boolean = 16, bytea = 17, int8 = 20, int2 = 21, text = 25 };

/// A one-dimensional array in PostgreSQL's binary format, built element by element.
class PgArray {
 public:
  explicit PgArray(PgType element);
  /// An element of the types int8, int2 or boolean.
  void add(std::int64_t value);
  /// An element of the types text or bytea.
  void add(std::string_view value);
  void add_null();
  std::size_t size() const { return count_; }
  std::size_t bytes() const { return data_.size(); }
  PgType element() const { return element_; }
  /// The whole value; the array stays.
  std::string_view data();
  void clear();

 private:
  PgType element_;
  std::uint32_t count_ = 0;
  bool has_null_ = false;
  std::string data_;
};

/// The parameters $1, $2, … of one statement, in binary format.
class PgParams {
 public:
  PgParams& add(std::int64_t value);
  /// Copies the bytes.
  PgParams& add_text(std::string_view value);
  PgParams& add_bytes(std::string_view value);
  PgParams& add_null(PgType type);
  /// Does not copy: the array must live until the statement is done.
  PgParams& add(PgArray& array);

 private:
  friend class PgConnection;
  struct Param {
    std::uint32_t type;
    bool null;
    std::string owned;
    std::string_view borrowed;
  };
  PgParams& push(std::uint32_t type, std::string owned);
  std::vector<Param> params_;
};

struct PgConnectOptions {
  /// What pg_stat_activity shows of the session, unless the conninfo says.
  std::string application_name = "isthmus";
  /// A connection for logical replication: takes the simple protocol only.
  bool replication = false;
  /// Longest silence of the server while a statement runs; then the session counts as lost.
  std::chrono::milliseconds statement_wait{10'000};
  /// Once this is true, a call that waits gives the session up as lost, within 100 ms. Null: never. Any
  /// thread may set it; it outlives the session.
  const std::atomic<bool>* give_up = nullptr;
};

/// One session. Used by one thread at a time. All functions throw PgError; one with `connection_lost` leaves
/// the object good for nothing but destruction.
class PgConnection {
 public:
  /// Connects to what `conninfo` names, waiting at most 3 s for each host unless it says otherwise. Refuses a
  /// standby that takes no writes. With several hosts it takes the one that is writable.
  explicit PgConnection(const std::string& conninfo, PgConnectOptions options = {});

  /// Runs one or several statements in the simple protocol, those of one call in one transaction unless they
  /// say otherwise; gives the answer of the last.
  PgResult exec(const std::string& sql);
  /// Runs one statement with parameters; the answer is binary.
  PgResult exec(const std::string& sql, const PgParams& params);
  /// Prepares a statement of which the types of all parameters follow from where they stand.
  void prepare(const std::string& name, const std::string& sql);
  /// Runs a prepared statement with parameters in binary format; a null pointer is NULL. Copies nothing.
  void exec_prepared(const std::string& name, const std::vector<const char*>& values,
                     const std::vector<int>& lengths);
  /// Waits until what was sent by `send` has come to its COPY … FROM STDIN, the last statement of the string.
  void await_copy_in();
  /// Sends a piece, of any size; waits when the server does not keep up.
  void copy_in(std::string_view bytes);
  /// Ends the COPY and waits for its commit.
  void end_copy_in();
  /// Ends the COPY with an error: nothing of its transaction happens.
  void cancel_copy_in(const std::string& why);
  /// Begins a COPY … TO STDOUT.
  void begin_copy_out(const std::string& sql);
  /// The next piece: false at the end. The view lives until the next call.
  bool copy_out(std::string_view& piece);
  /// Sends a statement and does not wait. `finished` says whether it is done, without waiting, and throws
  /// what it ended with.
  void send(const std::string& sql);
  bool finished();

  /// The process id of the server's backend, as pg_locks and pg_stat_activity name it.
  int backend_pid() const;
  /// PostgreSQL's version as libpq counts it: 150004 is 15.4.
  int server_version() const;
  /// `text` as a literal of SQL, with its quotes.
  std::string literal(std::string_view text) const;
  void set_statement_wait(std::chrono::milliseconds wait) { options_.statement_wait = wait; }
  /// Another flag than PgConnectOptions::give_up from now on; gives the one before.
  const std::atomic<bool>* give_up_when(const std::atomic<bool>* flag) {
    return std::exchange(options_.give_up, flag);
  }
  /// libpq's handle, for what only one caller needs. Non-blocking; stays owned.
  pg_conn* handle() const { return connection_.get(); }

 private:
  static void finish(pg_conn* connection);
  static void free_piece(char* piece);
  void override_settings();
  pg_result* next_result();
  PgResult collect();
  void flush();
  void wait(bool for_write);
  void expect_copy(int status, const char* what);
  [[noreturn]] void lost(const std::string& why);
  [[noreturn]] void fail(const pg_result* result);

  PgConnectOptions options_;
  std::unique_ptr<pg_conn, void (*)(pg_conn*)> connection_{nullptr, &finish};
  std::unique_ptr<char, void (*)(char*)> piece_{nullptr, &free_piece};
};

/// Whether `url` is for libpq: a URI of its schemes, or a string of keywords and values.
bool is_postgresql_url(std::string_view url);
/// Throws PgError, whose text repeats nothing of the string, if libpq cannot read it or if it seems to hold a
/// password in a place where messages would show it.
void check_conninfo(const std::string& conninfo);
/// What the string says, and `defaults` (keyword, value) for what it does not say, as keywords and values.
/// Throws PgError as check_conninfo.
std::string complete_conninfo(const std::string& conninfo,
                              const std::vector<std::pair<const char*, const char*>>& defaults);
/// The place that a connection string names, as a URI of host, port and database only:
/// `postgresql://host:port/dbname`, several hosts as libpq lists them, a socket's folder as `?host=`.
std::string describe_conninfo(const std::string& conninfo);

}  // namespace isthmus::backend
