// The thread that keeps a shared log in order: registration, clock, partitions, and the checkpoint.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "src/keyspace/keyspace.hpp"
#include "src/site/checkpointer.hpp"
#include "src/site/journal.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// Runs the log's housekeeping once a second, and writes the checkpoint while this server is the writer, in a
/// database session of its own, so that no commit waits for it.
class Upkeep {
 public:
  /// `foreign_vector` says how far nothing is missing of other sites' rows.
  Upkeep(Site& site, Journal& journal, Checkpointer& checkpointer,
         std::function<backend::Vector()> foreign_vector);
  ~Upkeep() { stop(); }
  /// One round of housekeeping on the caller's thread, then the thread.
  void start();
  void stop();

 private:
  using Clock = std::chrono::steady_clock;
  void run();
  void round();
  void follow_role();
  void checkpoint();
  bool pause(std::chrono::microseconds time);

  Site& site_;
  Journal& journal_;
  Checkpointer& checkpointer_;
  const std::function<backend::Vector()> foreign_vector_;
  backend::OriginId guarded_ = 0;  // the lease under which the checkpoint is being written; 0: none
  Clock::time_point next_round_;
  std::uint64_t foreign_rows_ =
      0;  // how many of other sites had come before the last piece of the checkpoint
  std::string trouble_, checkpoint_trouble_;
  std::mutex mutex_;
  std::condition_variable stop_asked_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace isthmus
