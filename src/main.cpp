// The program: options in, one server, exit code out.
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>

#include "backend/postgresql_admin_sql.hpp"
#include "src/config.hpp"
#include "src/observe/logging.hpp"
#include "src/server.hpp"

int main(int argc, char** argv) {
  const isthmus::ParsedConfig parsed = isthmus::parse_config(argc, argv, isthmus::process_environment);
  if (!parsed.config) {
    std::fputs(parsed.message.c_str(), parsed.exit_code == 0 ? stdout : stderr);
    return parsed.exit_code;
  }
  if (parsed.config->print_admin_sql) {
    const std::string sql(isthmus::backend::postgresql_admin_sql());
    return std::fputs(sql.c_str(), stdout) < 0 ? 1 : 0;
  }
  try {
    isthmus::init_logging(parsed.config->log);
    // A write to a connection that is gone is an error code, never a signal; so is a file that would grow
    // over its limit.
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGXFSZ, SIG_IGN);
    isthmus::Server server(*parsed.config);
    return server.run() ? 0 : 1;
  } catch (const std::exception& error) {
    isthmus::log_error("Cannot start", {{"cause", error.what()}});
    // Whoever started it looks at the terminal first.
    if (!parsed.config->log.file.empty()) std::fprintf(stderr, "Cannot start: %s\n", error.what());
    return 1;
  }
}
