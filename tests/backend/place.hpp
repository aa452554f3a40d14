// A durable backend under test: where it keeps its state, whichever kind it is.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tests/backend/support.hpp"

namespace isthmus::backend::test {

/// An empty database of one kind, removed with the object.
class Place {
 public:
  virtual ~Place() = default;
  /// A log on it, which can append at once.
  virtual std::unique_ptr<Log> open() const = 0;
  /// All that it holds, as a server reads it.
  virtual Recorder load() const = 0;
  /// What a reader of the log makes of it.
  virtual void load_into(LoadSink& sink) const = 0;
  virtual std::int64_t count(const std::string& table) const = 0;
  /// The view `current`.
  virtual Model::State current() const = 0;
};

/// Names of the kinds, for tests with a parameter.
inline constexpr const char* kPlaces[] = {"Sqlite", "Postgresql"};
std::unique_ptr<Place> make_place(const std::string& kind);

}  // namespace isthmus::backend::test
