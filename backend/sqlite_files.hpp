// The files of an SQLite database as the server sees them: what is there, who holds it, is it still the same.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <sys/types.h>

#include "backend/log.hpp"

namespace isthmus::backend {

/// Which file a path names at this moment. Two identities are equal when they are the same file, whatever its
/// contents.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator==(const FileIdentity&) const = default;
};

/// The file that `path` names, or nothing when there is none (or it cannot be seen).
std::optional<FileIdentity> identify_file(const std::string& path);

/// Size in bytes, 0 when there is no such file.
std::uint64_t file_size(const std::string& path);

/// Removes a file if it is there.
void remove_file(const std::string& path);

/// Gives a file another name, in place of what had it before, durably. Throws OpenError.
void rename_file(const std::string& from, const std::string& to);

/// The absolute path of a database: its folder exists and the path, if it names anything, names a file that
/// we may read and write and that has no other name (a hard link: its lock file and its write-ahead log would
/// be others). Throws OpenError. The result begins with a slash, so that SQLite takes it neither
/// as a URI nor as `:memory:`.
std::string resolve_database_path(const std::string& path);

/// What the header of a file says about it (https://www.sqlite.org/fileformat2.html, section 1.3).
struct DatabaseHeader {
  std::uint32_t application_id = 0;
  std::uint32_t user_version = 0;
};

/// Reads the header without SQLite, which would leave files beside the database. Nothing when there is no
/// file or an empty one. Throws OpenError when the file is not an SQLite database.
std::optional<DatabaseHeader> read_database_header(const std::string& path);

/// The right to be the one server of a database: a locked file beside it. The lock belongs to the process, so
/// it ends with it, however it ends. SQLite's own locks stay free for other programs.
class LockFile {
 public:
  /// Throws OpenError when another server holds the lock or the file cannot be made.
  explicit LockFile(std::string path);
  ~LockFile();
  LockFile(const LockFile&) = delete;
  LockFile& operator=(const LockFile&) = delete;

  /// Whether the file is still there. Once it was removed another server may have the lock, and the right.
  bool holds() const { return identify_file(path_) == file_; }
  const std::string& path() const { return path_; }

 private:
  /// Opens and locks; false when the file was removed between the two, by its last owner.
  bool try_lock();
  void write_owner() const;

  std::string path_;
  FileIdentity file_;
  int descriptor_ = -1;
};

}  // namespace isthmus::backend
