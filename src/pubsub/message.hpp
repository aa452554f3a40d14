// A published message as its subscribers get it: encoded once, shared by all of them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <boost/smart_ptr/intrusive_ref_counter.hpp>

namespace isthmus {

/// The three name spaces that can be subscribed to, and the connections that ran MONITOR.
enum class ChannelKind : std::uint8_t { channel, pattern, shard, monitor };
inline constexpr std::size_t kChannelKinds = 4;

/// Immutable and reference-counted. `frame` is the RESP2 array; a RESP3 push differs in its first byte only
/// ('>').
struct Message : boost::intrusive_ref_counter<Message> {
  ChannelKind kind = ChannelKind::channel;
  std::string target;  ///< what its subscribers are subscribed to: the channel or the pattern
  std::string frame;

  /// The forms are those of https://redis.io/docs/latest/develop/interact/pubsub/.
  static boost::intrusive_ptr<const Message> to_channel(std::string_view channel, std::string_view payload);
  static boost::intrusive_ptr<const Message> to_pattern(std::string_view pattern, std::string_view channel,
                                                        std::string_view payload);
  static boost::intrusive_ptr<const Message> to_shard(std::string_view channel, std::string_view payload);
  /// A line of MONITOR: a simple string in both protocols.
  static boost::intrusive_ptr<const Message> to_monitors(std::string_view line);
};
using MessageRef = boost::intrusive_ptr<const Message>;

}  // namespace isthmus
