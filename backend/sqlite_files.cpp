// The files of an SQLite database as the server sees them: what is there, who holds it, is it still the same.
#include "backend/sqlite_files.hpp"

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

namespace isthmus::backend {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kHeaderSize = 100;
constexpr std::size_t kUserVersionOffset = 60;
constexpr std::size_t kApplicationIdOffset = 68;
/// The first 16 bytes of every SQLite database, the final zero included.
constexpr std::string_view kMagic{"SQLite format 3", 16};

std::string reason(int error) { return std::generic_category().message(error); }

std::uint32_t big_endian_32(const char* bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = (value << 8U) | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// A file descriptor that closes itself.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

/// Reads up to `size` bytes from the start of the file; the number read, or -1 with errno.
ssize_t read_start(int descriptor, char* to, std::size_t size) {
  std::size_t done = 0;
  while (done < size) {
    const ssize_t got = ::pread(descriptor, to + done, size - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

void check_folder(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status))
    throw OpenError("sqlite: the folder " + folder.string() + " does not exist; make it first");
  if (!fs::is_directory(status)) throw OpenError("sqlite: " + folder.string() + " is not a folder");
  // SQLite keeps its write-ahead log beside the database, so the folder itself must be writable.
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    throw OpenError("sqlite: cannot write in the folder " + folder.string() + ": " + reason(errno));
  }
}

void check_file(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return;
  if (fs::is_directory(status)) {
    throw OpenError("sqlite: " + path.string() + " is a folder; name a file in it, as " + path.string() +
                    "/isthmus.db");
  }
  if (!fs::is_regular_file(status)) throw OpenError("sqlite: " + path.string() + " is not a regular file");
  if (::access(path.c_str(), R_OK | W_OK) != 0) {
    throw OpenError("sqlite: cannot read and write " + path.string() + ": " + reason(errno));
  }
  if (fs::hard_link_count(path, error) > 1 && !error) {
    throw OpenError(
        "sqlite: " + path.string() +
        " has another name too (a hard link), by which another server could use it, and what was "
        "committed last stands beside one of the names only: remove the other name, or copy the file");
  }
}

}  // namespace

std::optional<FileIdentity> identify_file(const std::string& path) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0) return std::nullopt;
  return FileIdentity{found.st_dev, found.st_ino};
}

std::uint64_t file_size(const std::string& path) {
  struct stat found {};
  return ::stat(path.c_str(), &found) == 0 ? static_cast<std::uint64_t>(found.st_size) : 0;
}

void remove_file(const std::string& path) { ::unlink(path.c_str()); }

void rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    throw OpenError("sqlite: cannot rename " + from + " to " + to + ": " + reason(errno));
  }
  const std::string folder = fs::path(to).parent_path().string();
  const Descriptor descriptor(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0 || ::fsync(descriptor.get()) != 0) {
    throw OpenError("sqlite: cannot make the folder " + folder + " durable: " + reason(errno));
  }
}

std::string resolve_database_path(const std::string& path) {
  if (path.empty())
    throw OpenError("sqlite: no path given; use sqlite:PATH, as sqlite:/var/lib/isthmus/isthmus.db");
  if (path.find('\0') != std::string::npos) throw OpenError("sqlite: the path holds a zero byte");
  std::error_code error;
  // Links are followed, so that two names of one database have one lock file.
  const fs::path resolved = fs::weakly_canonical(fs::absolute(path), error);
  if (error) throw OpenError("sqlite: cannot use the path " + path + ": " + error.message());
  if (path.ends_with('/') || resolved.filename().empty()) {
    throw OpenError("sqlite: " + path + " names a folder; name a file in it, as isthmus.db");
  }
  check_folder(resolved.parent_path());
  check_file(resolved);
  return resolved.string();
}

std::optional<DatabaseHeader> read_database_header(const std::string& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.get() < 0) {
    if (errno == ENOENT) return std::nullopt;
    throw OpenError("sqlite: cannot read " + path + ": " + reason(errno));
  }
  std::array<char, kHeaderSize> header{};
  const ssize_t size = read_start(descriptor.get(), header.data(), header.size());
  if (size < 0) throw OpenError("sqlite: cannot read " + path + ": " + reason(errno));
  if (size == 0) return std::nullopt;
  if (std::string_view(header.data(), kMagic.size()) != kMagic) {
    throw OpenError("sqlite: " + path + " is not an SQLite database; name another file");
  }
  return DatabaseHeader{big_endian_32(header.data() + kApplicationIdOffset),
                        big_endian_32(header.data() + kUserVersionOffset)};
}

LockFile::LockFile(std::string path) : path_(std::move(path)) {
  while (!try_lock()) {
  }
  write_owner();
}

LockFile::~LockFile() {
  // Unlinked while still locked: whoever opened it before sees in try_lock that it is no longer the file of
  // that name. One that is not ours any more belongs to another server.
  if (holds()) remove_file(path_);
  ::close(descriptor_);
}

bool LockFile::try_lock() {
  Descriptor descriptor(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (descriptor.get() < 0)
    throw OpenError("sqlite: cannot make the lock file " + path_ + ": " + reason(errno));
  if (::flock(descriptor.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) throw OpenError("sqlite: cannot lock " + path_ + ": " + reason(errno));
    std::array<char, 16> owner{};
    const ssize_t size = read_start(descriptor.get(), owner.data(), owner.size() - 1);
    const std::string pid =
        size > 0 ? std::string(owner.data(), std::strcspn(owner.data(), "\n")) : "unknown";
    throw OpenError("sqlite: another server (process " + pid + ") uses this database: it holds " + path_);
  }
  struct stat locked {};
  if (::fstat(descriptor.get(), &locked) != 0) return false;
  file_ = {locked.st_dev, locked.st_ino};
  if (!holds()) return false;
  descriptor_ = descriptor.release();
  return true;
}

void LockFile::write_owner() const {
  // For people and for the message above only, so a failure to write it does not matter.
  const std::string owner = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor_, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor_, owner.data(), owner.size(), 0);
  }
}

}  // namespace isthmus::backend
