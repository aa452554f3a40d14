#include "src/pubsub/message.hpp"

#include "resp/writer.hpp"

namespace isthmus {
namespace {

MessageRef make(ChannelKind kind, std::string_view word, std::string_view pattern, std::string_view channel,
                std::string_view payload) {
  auto* message = new Message;
  message->kind = kind;
  message->target = kind == ChannelKind::pattern ? pattern : channel;
  message->frame.reserve(64 + pattern.size() + channel.size() + payload.size());
  resp::Writer writer(message->frame, 2);
  writer.array(kind == ChannelKind::pattern ? 4 : 3);
  writer.bulk(word);
  if (kind == ChannelKind::pattern) writer.bulk(pattern);
  writer.bulk(channel);
  writer.bulk(payload);
  return MessageRef(message);
}

}  // namespace

MessageRef Message::to_channel(std::string_view channel, std::string_view payload) {
  return make(ChannelKind::channel, "message", {}, channel, payload);
}

MessageRef Message::to_pattern(std::string_view pattern, std::string_view channel, std::string_view payload) {
  return make(ChannelKind::pattern, "pmessage", pattern, channel, payload);
}

MessageRef Message::to_shard(std::string_view channel, std::string_view payload) {
  return make(ChannelKind::shard, "smessage", {}, channel, payload);
}

MessageRef Message::to_monitors(std::string_view line) {
  auto* message = new Message;
  message->kind = ChannelKind::monitor;
  resp::Writer(message->frame, 2).simple(line);
  return MessageRef(message);
}

}  // namespace isthmus
