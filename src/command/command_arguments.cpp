// The arguments of each command, as COMMAND DOCS of Redis 7.0.15 has them.
#include "src/command/command_arguments.hpp"

#include <algorithm>
#include <utility>

namespace isthmus {
namespace {

using Syntax = std::pair<std::string_view, std::string_view>;

// Sorted by name. Of CLIENT SETINFO and NO-TOUCH: as Redis 7.2 has them.
constexpr Syntax kSyntaxes[] = {
    {"acl|cat", "[categoryname]"},
    {"append", "key%k0 value"},
    {"auth", "[username@6.0.0] password"},
    {"bgsave", "[SCHEDULE=schedule%t@3.2.2]"},
    {"client|caching", "mode<YES=yes%t|NO=no%t>"},
    {"client|kill",
     "filter<ip:port!2.8.12|new-format<[ID=client-id%i@2.8.12]|[TYPE=normal_master_slave_pubsub<NORMAL="
     "normal%t|MASTER=master%t@3.2.0|SLAVE=slave%t|REPLICA=replica%t@5.0.0|PUBSUB=pubsub%t>@2.8.12]|[USER="
     "username]|[ADDR=ip:port]|[LADDR=ip:port@6.2.0]|[SKIPME=yes/no]>*>"},
    {"client|list",
     "[TYPE=normal_master_replica_pubsub<NORMAL=normal%t|MASTER=master%t|REPLICA=replica%t|PUBSUB=pubsub%t>@"
     "5.0.0] [ID=id{client-id%i*}@6.2.0]"},
    {"client|no-evict", "enabled<ON=on%t|OFF=off%t>"},
    {"client|no-touch", "enabled<ON=on%t|OFF=off%t>"},
    {"client|pause", "timeout%i [mode<WRITE=write%t|ALL=all%t>@6.2.0]"},
    {"client|reply", "on_off_skip<ON=on%t|OFF=off%t|SKIP=skip%t>"},
    {"client|setinfo", "attr<LIB-NAME=libname|LIB-VER=libver>"},
    {"client|setname", "connection-name"},
    {"client|tracking",
     "status<ON=on%t|OFF=off%t> [REDIRECT=client-id%i] [PREFIX=prefix*+] [BCAST=bcast%t] [OPTIN=optin%t] "
     "[OPTOUT=optout%t] [NOLOOP=noloop%t]"},
    {"client|unblock", "client-id%i [timeout_error<TIMEOUT=timeout%t|ERROR=error%t>]"},
    {"cluster|addslots", "slot%i*"},
    {"cluster|addslotsrange", "start-slot_end-slot{start-slot%i end-slot%i}*"},
    {"cluster|count-failure-reports", "node-id"},
    {"cluster|countkeysinslot", "slot%i"},
    {"cluster|delslots", "slot%i*"},
    {"cluster|delslotsrange", "start-slot_end-slot{start-slot%i end-slot%i}*"},
    {"cluster|failover", "[options<FORCE=force%t|TAKEOVER=takeover%t>]"},
    {"cluster|forget", "node-id"},
    {"cluster|getkeysinslot", "slot%i count%i"},
    {"cluster|keyslot", "key"},
    {"cluster|meet", "ip port%i [cluster_bus_port%i@4.0.0]"},
    {"cluster|replicas", "node-id"},
    {"cluster|replicate", "node-id"},
    {"cluster|reset", "[hard_soft<HARD=hard%t|SOFT=soft%t>]"},
    {"cluster|set-config-epoch", "config-epoch%i"},
    {"cluster|setslot",
     "slot%i subcommand<IMPORTING=node-id|MIGRATING=node-id|NODE=node-id|STABLE=stable%t>"},
    {"cluster|slaves", "node-id"},
    {"command|docs", "[command-name*]"},
    {"command|info", "[command-name*]"},
    {"command|list", "[FILTERBY=filterby<MODULE=module-name|ACLCAT=category|PATTERN=pattern%p>]"},
    {"config|get", "parameter{parameter}*"},
    {"config|set", "parameter_value{parameter value}*"},
    {"copy", "source%k0 destination%k1 [DB=destination-db%i] [REPLACE=replace%t]"},
    {"decr", "key%k0"},
    {"decrby", "key%k0 decrement%i"},
    {"del", "key%k0*"},
    {"dump", "key%k0"},
    {"echo", "message"},
    {"exists", "key%k0*"},
    {"expire", "key%k0 seconds%i [condition<NX=nx%t|XX=xx%t|GT=gt%t|LT=lt%t>@7.0.0]"},
    {"expireat", "key%k0 unix-time-seconds%u [condition<NX=nx%t|XX=xx%t|GT=gt%t|LT=lt%t>@7.0.0]"},
    {"expiretime", "key%k0"},
    {"flushall", "[async<ASYNC=async%t@4.0.0|SYNC=sync%t@6.2.0>]"},
    {"flushdb", "[async<ASYNC=async%t@4.0.0|SYNC=sync%t@6.2.0>]"},
    {"get", "key%k0"},
    {"getdel", "key%k0"},
    {"getex",
     "key%k0 "
     "[expiration<EX=seconds%i|PX=milliseconds%i|EXAT=unix-time-seconds%u|PXAT=unix-time-milliseconds%u|"
     "PERSIST=persist%t>]"},
    {"getrange", "key%k0 start%i end%i"},
    {"getset", "key%k0 value"},
    {"hdel", "key%k0 field*"},
    {"hello", "[arguments{protover%i [AUTH=username_password{username password}] [SETNAME=clientname]}]"},
    {"hexists", "key%k0 field"},
    {"hget", "key%k0 field"},
    {"hgetall", "key%k0"},
    {"hincrby", "key%k0 field increment%i"},
    {"hincrbyfloat", "key%k0 field increment%d"},
    {"hkeys", "key%k0"},
    {"hlen", "key%k0"},
    {"hmget", "key%k0 field*"},
    {"hmset", "key%k0 field_value{field value}*"},
    {"hrandfield", "key%k0 [options{count%i [WITHVALUES=withvalues%t]}]"},
    {"hscan", "key%k0 cursor%i [MATCH=pattern%p] [COUNT=count%i]"},
    {"hset", "key%k0 field_value{field value}*"},
    {"hsetnx", "key%k0 field value"},
    {"hstrlen", "key%k0 field"},
    {"hvals", "key%k0"},
    {"incr", "key%k0"},
    {"incrby", "key%k0 increment%i"},
    {"incrbyfloat", "key%k0 increment%d"},
    {"info", "[section*]"},
    {"keys", "pattern%p"},
    {"latency|graph", "event"},
    {"latency|histogram", "[command*]"},
    {"latency|history", "event"},
    {"latency|reset", "[event*]"},
    {"memory|usage", "key%k0 [SAMPLES=count%i]"},
    {"mget", "key%k0*"},
    {"move", "key%k0 db%i"},
    {"mset", "key_value{key%k0 value}*"},
    {"msetnx", "key_value{key%k0 value}*"},
    {"object|encoding", "key%k0"},
    {"object|freq", "key%k0"},
    {"object|idletime", "key%k0"},
    {"object|refcount", "key%k0"},
    {"persist", "key%k0"},
    {"pexpire", "key%k0 milliseconds%i [condition<NX=nx%t|XX=xx%t|GT=gt%t|LT=lt%t>@7.0.0]"},
    {"pexpireat", "key%k0 unix-time-milliseconds%u [condition<NX=nx%t|XX=xx%t|GT=gt%t|LT=lt%t>@7.0.0]"},
    {"pexpiretime", "key%k0"},
    {"ping", "[message]"},
    {"psetex", "key%k0 milliseconds%i value"},
    {"psubscribe", "pattern{pattern%p}*"},
    {"pttl", "key%k0"},
    {"publish", "channel message"},
    {"pubsub|channels", "[pattern%p]"},
    {"pubsub|numsub", "[channel*]"},
    {"pubsub|shardchannels", "[pattern%p]"},
    {"pubsub|shardnumsub", "[shardchannel*]"},
    {"punsubscribe", "[pattern%p*]"},
    {"rename", "key%k0 newkey%k1"},
    {"renamenx", "key%k0 newkey%k1"},
    {"restore",
     "key%k0 ttl%i serialized-value [REPLACE=replace%t@3.0.0] [ABSTTL=absttl%t@5.0.0] "
     "[IDLETIME=seconds%i@5.0.0] [FREQ=frequency%i@5.0.0]"},
    {"sadd", "key%k0 member*"},
    {"scan", "cursor%i [MATCH=pattern%p] [COUNT=count%i] [TYPE=type@6.0.0]"},
    {"scard", "key%k0"},
    {"sdiff", "key%k0*"},
    {"sdiffstore", "destination%k0 key%k1*"},
    {"select", "index%i"},
    {"set",
     "key%k0 value [condition<NX=nx%t|XX=xx%t>@2.6.12] [GET=get%t@6.2.0] "
     "[expiration<EX=seconds%i@2.6.12|PX=milliseconds%i@2.6.12|EXAT=unix-time-seconds%u@6.2.0|PXAT=unix-time-"
     "milliseconds%u@6.2.0|KEEPTTL=keepttl%t@6.0.0>]"},
    {"setex", "key%k0 seconds%i value"},
    {"setnx", "key%k0 value"},
    {"setrange", "key%k0 offset%i value"},
    {"shutdown",
     "[nosave_save<NOSAVE=nosave%t|SAVE=save%t>] [NOW=now%t@7.0.0] [FORCE=force%t@7.0.0] "
     "[ABORT=abort%t@7.0.0]"},
    {"sinter", "key%k0*"},
    {"sintercard", "numkeys%i key%k0* [LIMIT=limit%i]"},
    {"sinterstore", "destination%k0 key%k1*"},
    {"sismember", "key%k0 member"},
    {"slowlog|get", "[count%i]"},
    {"smembers", "key%k0"},
    {"smismember", "key%k0 member*"},
    {"smove", "source%k0 destination%k1 member"},
    {"spop", "key%k0 [count%i@3.2.0]"},
    {"spublish", "shardchannel message"},
    {"srandmember", "key%k0 [count%i@2.6.0]"},
    {"srem", "key%k0 member*"},
    {"sscan", "key%k0 cursor%i [MATCH=pattern%p] [COUNT=count%i]"},
    {"ssubscribe", "shardchannel*"},
    {"strlen", "key%k0"},
    {"subscribe", "channel*"},
    {"substr", "key%k0 start%i end%i"},
    {"sunion", "key%k0*"},
    {"sunionstore", "destination%k0 key%k1*"},
    {"sunsubscribe", "[shardchannel*]"},
    {"swapdb", "index1%i index2%i"},
    {"touch", "key%k0*"},
    {"ttl", "key%k0"},
    {"type", "key%k0"},
    {"unlink", "key%k0*"},
    {"unsubscribe", "[channel*]"},
    {"wait", "numreplicas%i timeout%i"},
    {"watch", "key%k0*"},
};
static_assert(std::is_sorted(std::begin(kSyntaxes), std::end(kSyntaxes)));

// Takes the text apart from its beginning.
class ArgumentParser {
 public:
  explicit ArgumentParser(std::string_view text) : text_(text) {}

  // Until the end, or until `end`, which is taken.
  std::vector<Argument> list(char separator, char end) {
    std::vector<Argument> arguments;
    while (!text_.empty()) {
      arguments.push_back(argument());
      if (take(end)) break;
      take(separator);
    }
    return arguments;
  }

 private:
  bool take(char c) {
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  std::string_view take_until(std::string_view stops) {
    const std::string_view taken = text_.substr(0, text_.find_first_of(stops));
    text_.remove_prefix(taken.size());
    return taken;
  }

  static std::string_view type_name(char letter) {
    switch (letter) {
      case 'i':
        return "integer";
      case 'd':
        return "double";
      case 'p':
        return "pattern";
      case 'u':
        return "unix-time";
      case 't':
        return "pure-token";
      default:
        return "key";
    }
  }

  void type(Argument& argument) {
    argument.type = "string";
    if (take('<')) {
      argument.type = "oneof";
      argument.arguments = list('|', '>');
    } else if (take('{')) {
      argument.type = "block";
      argument.arguments = list(' ', '}');
    } else if (take('%')) {
      argument.type = type_name(text_.front());
      text_.remove_prefix(1);
      if (argument.type != "key") return;
      argument.key_spec = text_.front() - '0';
      text_.remove_prefix(1);
    }
  }

  Argument argument() {
    constexpr std::string_view kAfterName = "=%<{@!*+|>} ]";
    constexpr std::string_view kAfterVersion = "!*+|>} ]";
    Argument result;
    result.optional = take('[');
    result.name = take_until(kAfterName);
    if (take('=')) {
      result.token = result.name;
      result.name = take_until(kAfterName);
    }
    type(result);
    if (take('@')) result.since = take_until(kAfterVersion);
    if (take('!')) result.deprecated_since = take_until(kAfterVersion);
    result.multiple = take('*');
    result.multiple_token = take('+');
    if (result.optional) take(']');
    return result;
  }

  std::string_view text_;
};

}  // namespace

std::vector<Argument> parse_arguments(std::string_view text) { return ArgumentParser(text).list(' ', '\0'); }

std::vector<Argument> command_arguments(const Command& command) {
  const auto it =
      std::lower_bound(std::begin(kSyntaxes), std::end(kSyntaxes), command.name,
                       [](const Syntax& syntax, std::string_view name) { return syntax.first < name; });
  if (it == std::end(kSyntaxes) || it->first != command.name) return {};
  return parse_arguments(it->second);
}

}  // namespace isthmus
