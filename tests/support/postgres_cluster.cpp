#include "tests/support/postgres_cluster.hpp"

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <libpq-fe.h>
#include <pwd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/ports.hpp"

namespace isthmus::test {
namespace {

namespace fs = std::filesystem;

/// The newest PostgreSQL of Debian's packages that is installed, or what PG_BIN names.
fs::path program_folder() {
  if (const char* named = std::getenv("PG_BIN"); named != nullptr) return named;
  for (int version = 20; version >= 15; --version) {
    fs::path folder = "/usr/lib/postgresql/" + std::to_string(version) + "/bin";
    if (fs::exists(folder / "initdb")) return folder;
  }
  throw std::runtime_error("PostgreSQL is not installed: apt-get install postgresql-15, or set PG_BIN");
}

const passwd* postgres_user() {
  const passwd* user = ::getpwnam("postgres");
  if (user == nullptr) throw std::runtime_error("there is no OS user postgres");
  return user;
}

/// Runs a program of PostgreSQL to its end, as the user postgres if we are root. Its output goes into `log`.
void run(const std::string& program, std::vector<std::string> arguments, const fs::path& log) {
  const std::string path = (program_folder() / program).string();
  arguments.insert(arguments.begin(), path);
  std::vector<char*> raw;
  for (std::string& argument : arguments) raw.push_back(argument.data());
  raw.push_back(nullptr);
  const passwd* user = ::geteuid() == 0 ? postgres_user() : nullptr;
  const pid_t child = ::fork();
  if (child == 0) {
    // Only what is safe between fork and exec.
    if (user != nullptr && (::setgid(user->pw_gid) != 0 || ::setuid(user->pw_uid) != 0)) ::_exit(126);
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out >= 0) {
      ::dup2(out, 1);
      ::dup2(out, 2);
    }
    if (::chdir("/") != 0) ::_exit(126);
    ::execv(path.c_str(), raw.data());
    ::_exit(127);
  }
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
  std::ifstream in(log);
  const std::string said{std::istreambuf_iterator<char>(in), {}};
  throw std::runtime_error(program + " failed: " + said.substr(said.size() > 2000 ? said.size() - 2000 : 0));
}

fs::path make_folder() {
  std::string pattern = (fs::temp_directory_path() / "isthmus-pg-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) throw std::system_error(errno, std::generic_category(), pattern);
  if (::geteuid() == 0) {
    const passwd* user = postgres_user();
    if (::chown(pattern.c_str(), user->pw_uid, user->pw_gid) != 0) {
      throw std::system_error(errno, std::generic_category(), pattern);
    }
  }
  return pattern;
}

/// An empty cluster that others are copied from.
struct Template {
  fs::path folder = make_folder();
  FolderWarden warden{folder};
  Template() {
    run("initdb",
        {"-N", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "-D",
         (folder / "data").string()},
        folder / "initdb.log");
  }
};

const fs::path& template_data() {
  static const Template made;
  static const fs::path data = made.folder / "data";
  return data;
}

/// The state and the parent of a process, or {} if there is none.
std::pair<char, int> process_state(int pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  std::getline(file, line);
  // The name in parentheses may hold anything.
  const std::size_t end = line.rfind(')');
  if (end == std::string::npos || line.size() < end + 4) return {};
  return {line[end + 2], std::atoi(line.c_str() + end + 4)};
}

/// Whether a process runs; one that has ended and was not waited for does not.
bool alive(int pid) {
  const char state = pid > 1 ? process_state(pid).first : '\0';
  return state != '\0' && state != 'Z' && state != 'X';
}

std::vector<int> children_of(int pid) {
  std::vector<int> children;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const int child = std::atoi(entry.path().filename().c_str());
    if (child > 1 && process_state(child).second == pid) children.push_back(child);
  }
  return children;
}

std::vector<std::string> rows_of(PGconn* connection, const std::string& statements) {
  PGresult* result = PQexec(connection, statements.c_str());
  const ExecStatusType status = PQresultStatus(result);
  if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_EMPTY_QUERY) {
    const std::string message = PQerrorMessage(connection);
    PQclear(result);
    throw std::runtime_error(message + "in: " + statements);
  }
  std::vector<std::string> rows;
  for (int row = 0; row < PQntuples(result); ++row) {
    std::string line;
    for (int column = 0; column < PQnfields(result); ++column) {
      line += (column == 0 ? "" : "|") + std::string(PQgetvalue(result, row, column));
    }
    rows.push_back(line);
  }
  PQclear(result);
  return rows;
}

}  // namespace

FolderWarden::FolderWarden(const fs::path& folder) {
  static constexpr const char* kScript =
      "cat; if read -r pid <\"$1/data/postmaster.pid\"; then kill -QUIT \"$pid\"; tries=0; "
      "while kill -0 \"$pid\" && [ \"$tries\" -lt 100 ]; do tries=$((tries + 1)); sleep 0.05; done; fi; "
      "rm -rf \"$1\"";
  const std::string path = folder.string();
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  pid_ = ::fork();
  if (pid_ == 0) {
    // Only what is safe between fork and exec.
    ::setsid();
    ::dup2(ends[0], 0);
    const int nothing = ::open("/dev/null", O_WRONLY);
    ::dup2(nothing, 1);
    ::dup2(nothing, 2);
    ::execl("/bin/sh", "sh", "-c", kScript, "sh", path.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[0]);
  pipe_ = ends[1];
}

FolderWarden::~FolderWarden() {
  ::close(pipe_);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

PostgresCluster::PostgresCluster(Empty) : folder_(make_folder()), port_(free_port()) {}

PostgresCluster::PostgresCluster(const Settings& settings) : PostgresCluster(Empty{}) {
  // As the user postgres, who may read the template and has to own the copy.
  const fs::path from = template_data();
  fs::copy(from, data(), fs::copy_options::recursive);
  fs::permissions(data(), fs::perms::owner_all);
  if (::geteuid() == 0) {
    const passwd* user = postgres_user();
    const auto give = [user](const fs::path& path) {
      if (::lchown(path.c_str(), user->pw_uid, user->pw_gid) != 0)
        throw std::runtime_error("cannot give away " + path.string());
    };
    give(data());
    for (const auto& entry : fs::recursive_directory_iterator(data())) give(entry.path());
  }
  launch(settings);
}

std::unique_ptr<PostgresCluster> PostgresCluster::standby_of(PostgresCluster& primary,
                                                             const Settings& settings) {
  std::unique_ptr<PostgresCluster> standby(new PostgresCluster(Empty{}));
  run("pg_basebackup",
      {"-D", standby->data().string(), "-R", "-X", "stream", "-c", "fast", "-d",
       primary.url() + "?application_name=standby_" + std::to_string(standby->port())},
      standby->folder_ / "basebackup.log");
  standby->launch(settings);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (primary.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND "
                       "application_name = 'standby_" +
                       std::to_string(standby->port()) + "'") != "1") {
    if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("the standby does not stream");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return standby;
}

void PostgresCluster::launch(const Settings& settings) {
  Settings all = {{"wal_level", "logical"},        {"listen_addresses", "'127.0.0.1'"},
                  {"port", std::to_string(port_)}, {"unix_socket_directories", "'" + folder_.string() + "'"},
                  {"max_connections", "100"},      {"shared_buffers", "'64MB'"},
                  {"max_wal_size", "'4GB'"}};
  for (const auto& [name, value] : settings) all[name] = value;
  configure(all);
  start();
}

PostgresCluster::~PostgresCluster() {
  try {
    if (running()) stop("immediate");
  } catch (const std::exception&) {
    const int pid = postmaster_pid();
    if (pid > 1) ::kill(pid, SIGKILL);
  }
}

void PostgresCluster::start() {
  run("pg_ctl", {"-D", data().string(), "-w", "-t", "60", "-l", log_file().string(), "start"},
      folder_ / "pg_ctl.log");
}

void PostgresCluster::stop(const std::string& mode) {
  run("pg_ctl", {"-D", data().string(), "-w", "-t", "60", "-m", mode, "stop"}, folder_ / "pg_ctl.log");
}

void PostgresCluster::kill() {
  const int pid = postmaster_pid();
  if (!alive(pid)) return;
  // The children end when they see that it is gone; until then a start is refused.
  std::vector<int> all = children_of(pid);
  all.push_back(pid);
  ::kill(pid, SIGKILL);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  for (const int process : all) {
    while (alive(process)) {
      if (std::chrono::steady_clock::now() > deadline)
        throw std::runtime_error("PostgreSQL's processes do not end");
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  // Where nobody waits for orphans, the process id in these files looks alive.
  std::error_code ignored;
  fs::remove(data() / "postmaster.pid", ignored);
  fs::remove(folder_ / (".s.PGSQL." + std::to_string(port_) + ".lock"), ignored);
}

void PostgresCluster::promote() {
  run("pg_ctl", {"-D", data().string(), "-w", "-t", "60", "promote"}, folder_ / "pg_ctl.log");
}

void PostgresCluster::configure(const Settings& settings) {
  std::ofstream file(data() / "postgresql.conf", std::ios::app);
  for (const auto& [name, value] : settings) file << name << " = " << value << "\n";
  file.flush();
  if (!file) throw std::runtime_error("cannot write postgresql.conf");
}

void PostgresCluster::reload() { run("pg_ctl", {"-D", data().string(), "reload"}, folder_ / "pg_ctl.log"); }

void PostgresCluster::require_tls(const std::string& cert_file, const std::string& key_file) {
  const auto take = [&](const std::string& from, const char* name) {
    const fs::path to = data() / name;
    fs::copy_file(from, to, fs::copy_options::overwrite_existing);
    fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write);
    const passwd* user = ::geteuid() == 0 ? postgres_user() : nullptr;
    if (user != nullptr && ::chown(to.c_str(), user->pw_uid, user->pw_gid) != 0) {
      throw std::system_error(errno, std::generic_category(), to);
    }
  };
  take(cert_file, "server.crt");
  take(key_file, "server.key");
  configure({{"ssl", "on"}});
  std::ofstream rules(data() / "pg_hba.conf", std::ios::trunc);
  rules << "local all all trust\nhostssl all all 127.0.0.1/32 trust\nhostssl replication all 127.0.0.1/32 "
           "trust\n";
  rules.flush();
  if (!rules) throw std::runtime_error("cannot write pg_hba.conf");
}

int PostgresCluster::postmaster_pid() const {
  std::ifstream file(data() / "postmaster.pid");
  int pid = 0;
  file >> pid;
  return pid;
}

bool PostgresCluster::running() const {
  const int pid = postmaster_pid();
  return alive(pid);
}

std::string PostgresCluster::url(const std::string& database, const std::string& role) const {
  return "postgresql://" + role + "@127.0.0.1:" + std::to_string(port_) + "/" + database;
}

std::vector<std::string> PostgresCluster::sql(const std::string& statements, const std::string& database,
                                              const std::string& role) const {
  return PostgresSession(url(database, role)).sql(statements);
}

std::string PostgresCluster::value(const std::string& statement, const std::string& database) const {
  const std::vector<std::string> rows = sql(statement, database);
  return rows.empty() ? "" : rows.front().substr(0, rows.front().find('|'));
}

std::string PostgresCluster::create_database() {
  std::string name = "db" + std::to_string(++databases_);
  sql("CREATE DATABASE " + name);
  return name;
}

PostgresSession::PostgresSession(const std::string& url) : connection_(PQconnectdb(url.c_str())) {
  if (PQstatus(connection_) == CONNECTION_OK) {
    PQsetNoticeProcessor(
        connection_, [](void*, const char*) {}, nullptr);
    return;
  }
  const std::string message = PQerrorMessage(connection_);
  PQfinish(connection_);
  throw std::runtime_error(message);
}

PostgresSession::~PostgresSession() { PQfinish(connection_); }
std::vector<std::string> PostgresSession::sql(const std::string& statements) {
  return rows_of(connection_, statements);
}
int PostgresSession::pid() const { return PQbackendPID(connection_); }

}  // namespace isthmus::test
