#include "src/observe/stats.hpp"

#include <algorithm>

namespace isthmus {

Stats::Stats(std::size_t threads, std::size_t commands) {
  for (std::size_t i = 0; i < threads; ++i) threads_.push_back(std::make_unique<ThreadStats>(commands));
}

void Stats::reset() {
  for (const auto& thread : threads_) {
    for (ThreadStats::PerCommand& command : thread->commands) {
      for (auto* counter : {&command.calls, &command.rejected, &command.failed, &command.nanoseconds})
        counter->store(0);
    }
    for (auto* counter :
         {&thread->commands_processed, &thread->input_bytes, &thread->output_bytes, &thread->keyspace_hits,
          &thread->keyspace_misses, &thread->read_calls, &thread->write_calls}) {
      counter->store(0);
    }
  }
  for (auto* counter :
       {&connections_received, &rejected_connections, &expired_keys, &closed_slow_subscribers,
        &output_buffer_disconnections, &query_buffer_disconnections, &published_messages, &delivered_messages,
        &error_replies, &auth_failures, &commit_timeouts, &moved_connections, &peak_memory_bytes}) {
    counter->store(0);
  }
  const std::lock_guard lock(mutex_);
  errors_.clear();
  sampled_commands_ = sampled_input_ = sampled_output_ = 0;
}

void Stats::count_error(std::string_view reply) {
  // Clients choose the rest of the line; the first word is ours, but bound the map all the same.
  constexpr std::size_t kMaxKinds = 64;
  const std::string_view word = reply.substr(0, reply.find(' '));
  error_replies.fetch_add(1, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  const auto it = errors_.find(word);
  if (it != errors_.end()) {
    ++it->second;
  } else if (errors_.size() < kMaxKinds) {
    errors_.emplace(std::string(word), 1);
  }
}

std::map<std::string, std::uint64_t> Stats::errors() const {
  const std::lock_guard lock(mutex_);
  return {errors_.begin(), errors_.end()};
}

void Stats::add_slow(SlowlogEntry entry, std::size_t max_len) {
  const std::lock_guard lock(mutex_);
  entry.id = next_slow_id_++;
  slow_.push_front(std::move(entry));
  if (slow_.size() > max_len) slow_.resize(max_len);
}

std::vector<SlowlogEntry> Stats::slow(std::int64_t count) const {
  const std::lock_guard lock(mutex_);
  const std::size_t n =
      count < 0 ? slow_.size() : std::min<std::size_t>(slow_.size(), static_cast<std::size_t>(count));
  return {slow_.begin(), slow_.begin() + static_cast<std::ptrdiff_t>(n)};
}

std::size_t Stats::slow_length() const {
  const std::lock_guard lock(mutex_);
  return slow_.size();
}

void Stats::reset_slow() {
  const std::lock_guard lock(mutex_);
  slow_.clear();
}

void Stats::sample(std::int64_t now_ms) {
  const std::uint64_t commands = sum([](const ThreadStats& t) -> auto& { return t.commands_processed; });
  const std::uint64_t input = sum([](const ThreadStats& t) -> auto& { return t.input_bytes; });
  const std::uint64_t output = sum([](const ThreadStats& t) -> auto& { return t.output_bytes; });
  const std::lock_guard lock(mutex_);
  const std::int64_t elapsed = now_ms - sampled_ms_;
  if (elapsed < 100) return;
  const auto rate = [&](std::uint64_t now, std::uint64_t before) {
    return now < before ? 0 : (now - before) * 1000 / static_cast<std::uint64_t>(elapsed);
  };
  if (sampled_ms_ != 0) {
    ops_rate_.store(rate(commands, sampled_commands_));
    input_rate_.store(rate(input, sampled_input_));
    output_rate_.store(rate(output, sampled_output_));
  }
  sampled_ms_ = now_ms;
  sampled_commands_ = commands;
  sampled_input_ = input;
  sampled_output_ = output;
}

}  // namespace isthmus
