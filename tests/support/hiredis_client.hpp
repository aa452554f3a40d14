// hiredis, the C client library that much software uses, with its memory owned.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <hiredis/hiredis.h>
#include <sys/time.h>

namespace isthmus::test {

/// A reply of hiredis; frees itself.
using HiredisReply = std::unique_ptr<redisReply, void (*)(void*)>;

/// A blocking hiredis connection with a timeout. Throws std::runtime_error on connection errors.
class HiredisClient {
 public:
  explicit HiredisClient(int port)
      : context_(::redisConnectWithTimeout("127.0.0.1", port, timeval{30, 0}), ::redisFree) {
    if (!context_ || context_->err != 0) throw std::runtime_error("hiredis cannot connect");
    ::redisSetTimeout(context_.get(), timeval{30, 0});
  }

  /// Sends one command and awaits its reply.
  HiredisReply call(const std::vector<std::string>& args) {
    append(args);
    return next();
  }

  /// Adds a command to the pipeline.
  void append(const std::vector<std::string>& args) {
    std::vector<const char*> words;
    std::vector<std::size_t> sizes;
    for (const auto& arg : args) words.push_back(arg.data()), sizes.push_back(arg.size());
    ::redisAppendCommandArgv(context_.get(), static_cast<int>(args.size()), words.data(), sizes.data());
  }

  /// The next reply of the pipeline, or the next message of a subscription.
  HiredisReply next() {
    void* reply = nullptr;
    if (::redisGetReply(context_.get(), &reply) != REDIS_OK) throw std::runtime_error(context_->errstr);
    return {static_cast<redisReply*>(reply), ::freeReplyObject};
  }

 private:
  std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

/// The bytes of a string reply.
inline std::string text_of(const redisReply& reply) {
  return {reply.str, static_cast<std::size_t>(reply.len)};
}

}  // namespace isthmus::test
