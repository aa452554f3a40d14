// A folder of a test's own, removed with all it holds when the test is over.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace isthmus::test {

/// A new folder under the system's temporary folder. Owns it: the destructor removes it.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  /// The path of `name` in this folder; nothing is created.
  std::string file(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// All bytes of the file; throws std::runtime_error if it cannot be read.
std::string read_file(const std::string& path);
/// Makes the file's contents `bytes`; throws std::runtime_error if that fails.
void write_file(const std::string& path, std::string_view bytes);

}  // namespace isthmus::test
