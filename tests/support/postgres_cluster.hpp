// A private PostgreSQL cluster of a test: its own folder, a unix socket, a free port on the loopback, gone
// with the object.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

struct pg_conn;

namespace isthmus::test {

/// A shell that removes a folder, and ends the cluster in it, when the process that made it has ended,
/// however that was. It is in a session of its own, so that no signal to a group meets it.
class FolderWarden {
 public:
  explicit FolderWarden(const std::filesystem::path& folder);
  /// Lets it see to the folder now, and waits.
  ~FolderWarden();
  FolderWarden(const FolderWarden&) = delete;
  FolderWarden& operator=(const FolderWarden&) = delete;

 private:
  int pipe_ = -1;  // it waits for the end of this
  int pid_ = -1;
};

/// A running cluster with `wal_level = logical`, all roles trusted, fsync on. Started by the user `postgres`
/// if the test is run by root, who may not run PostgreSQL. Throws std::runtime_error if something cannot be
/// done.
class PostgresCluster {
 public:
  using Settings = std::map<std::string, std::string>;

  /// A new cluster, with `settings` for postgresql.conf; started. The first of a process runs initdb, the
  /// others copy what it made.
  explicit PostgresCluster(const Settings& settings = {});
  /// A streaming standby of `primary` (by pg_basebackup); started, and it has connected.
  static std::unique_ptr<PostgresCluster> standby_of(PostgresCluster& primary, const Settings& settings = {});
  /// Kills what runs, and removes the folder.
  ~PostgresCluster();
  PostgresCluster(const PostgresCluster&) = delete;
  PostgresCluster& operator=(const PostgresCluster&) = delete;

  void start();
  /// `pg_ctl stop`; `mode` is fast, immediate or smart.
  void stop(const std::string& mode = "fast");
  void restart(const std::string& mode = "fast") {
    stop(mode);
    start();
  }
  /// SIGKILL to the postmaster, and waits until its children have noticed and gone. `start` then recovers.
  void kill();
  /// Makes a standby a primary, and waits until it takes writes.
  void promote();
  /// Adds lines to postgresql.conf: the last of a name counts. They need `reload` or a restart.
  void configure(const Settings& settings);
  void reload();
  /// From the next start on it listens with this certificate, and lets nobody in over TCP without TLS.
  void require_tls(const std::string& cert_file, const std::string& key_file);
  bool running() const;

  /// A connection URI for `database` over TCP.
  std::string url(const std::string& database = "postgres", const std::string& role = "postgres") const;
  int port() const { return port_; }
  /// The folder of the unix socket.
  std::string socket_folder() const { return folder_.string(); }
  std::filesystem::path log_file() const { return folder_ / "log"; }
  int postmaster_pid() const;

  /// Runs statements in the database and gives the rows of the last as their columns joined by '|'; NULL is
  /// empty. Throws std::runtime_error with PostgreSQL's message.
  std::vector<std::string> sql(const std::string& statements, const std::string& database = "postgres",
                               const std::string& role = "postgres") const;
  /// The first column of the first row, or "".
  std::string value(const std::string& statement, const std::string& database = "postgres") const;
  /// A new empty database, whose name is returned: cheaper than a new cluster.
  std::string create_database();

 private:
  struct Empty {};
  explicit PostgresCluster(Empty);
  void launch(const Settings& settings);
  std::filesystem::path data() const { return folder_ / "data"; }

  std::filesystem::path folder_;
  FolderWarden warden_{folder_};
  int port_ = 0;
  int databases_ = 0;
};

/// A session of a test's own, for what another program does meanwhile: open transactions, locks.
class PostgresSession {
 public:
  explicit PostgresSession(const std::string& url);
  ~PostgresSession();
  PostgresSession(const PostgresSession&) = delete;
  PostgresSession& operator=(const PostgresSession&) = delete;
  /// As PostgresCluster::sql.
  std::vector<std::string> sql(const std::string& statements);
  int pid() const;

 private:
  pg_conn* connection_;
};

}  // namespace isthmus::test
