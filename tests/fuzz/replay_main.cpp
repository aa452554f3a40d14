// Runs a fuzz target over files, so that the suite replays the corpus with any compiler. Stands in for
// libFuzzer's main.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string_view>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

namespace fs = std::filesystem;

// The file, or every file below the folder, in the same order each time.
std::vector<fs::path> files_at(const fs::path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

bool replay(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (!file) {
    std::cerr << "cannot read " << path << '\n';
    return false;
  }
  // Shown before it runs, so that a crash leaves the guilty file as the last line.
  std::cout << path.string() << std::endl;
  return LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(content.data()), content.size()) == 0;
}

}  // namespace

/// Arguments are files and folders; what begins with '-' is meant for libFuzzer. Fails when there was nothing
/// to run.
int main(int argc, char** argv) {
  std::size_t ran = 0;
  try {
    for (const std::string_view argument : std::vector<std::string_view>(argv + 1, argv + argc)) {
      if (argument.starts_with('-')) continue;
      for (const fs::path& path : files_at(argument)) {
        if (!replay(path)) return 1;
        ++ran;
      }
    }
  } catch (const fs::filesystem_error& failure) {
    std::cerr << failure.what() << '\n';
    return 1;
  }
  std::cout << "ran " << ran << " inputs" << std::endl;
  return ran > 0 ? 0 : 1;
}
