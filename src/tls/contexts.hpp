// What TLS connections of this server are made from: its certificate, its key, the authorities that it
// trusts.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "src/config.hpp"
#include "src/tls/connection.hpp"

namespace isthmus {

/// Keeps the files of a TlsConfig loaded. Connections keep what they were made from: a reload concerns new
/// ones only. Thread-safe.
class TlsContexts {
 public:
  /// Reads the files. Throws std::runtime_error with one line that names the option and the file.
  explicit TlsContexts(const TlsConfig& config);
  ~TlsContexts();
  TlsContexts(const TlsContexts&) = delete;
  TlsContexts& operator=(const TlsContexts&) = delete;

  /// For a socket that was accepted.
  std::unique_ptr<TlsConnection> serve(int socket);
  /// For a socket that was connected to another server of the site, at `host`. That must show a certificate
  /// of our authorities which names `host`, or has a name in common with our own: in a cluster, servers have
  /// addresses that nobody knew when their certificate was made. Null, with `why`, without authorities.
  std::unique_ptr<TlsConnection> connect(int socket, const std::string& host, std::string& why);

  /// Reads the files again. If they cannot be used it keeps what it has, says so in the log, and returns
  /// false.
  bool reload();
  /// Call once a second: reloads when files have changed and then stayed as they are for one more look,
  /// because certificate and key are written one after the other.
  void look_at_files();

  /// When the first certificate of the served chain runs out, in seconds since the Unix epoch; 0 without one.
  std::int64_t not_after_s() const;
  /// Why the newest files are not in use; empty if they are.
  std::string reload_error() const;
  TlsStats& stats() { return stats_; }
  const TlsStats& stats() const { return stats_; }
  /// Counts a handshake that failed and says why in the log: of many in a second only some.
  void note_failed_handshake(const std::string& address, std::string_view why);

 private:
  struct Loaded;
  struct FileState;
  std::shared_ptr<const Loaded> load() const;
  std::shared_ptr<const Loaded> current() const;
  std::vector<FileState> look() const;
  bool take_over(std::vector<FileState> files);

  const TlsConfig config_;
  TlsStats stats_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Loaded> current_;
  std::string reload_error_;
  // Of the caller of reload and look_at_files.
  std::vector<FileState> tried_, seen_;
  // Of note_failed_handshake.
  std::int64_t window_s_ = 0;
  int lines_in_window_ = 0;
  std::uint64_t unsaid_ = 0;
};

}  // namespace isthmus
