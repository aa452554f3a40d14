// hiredis as Debian packages it, which speaks RESP2: the same as the other clients are asked in scenario.mjs,
// in its blocking calls.
//
//   hiredis_client NEAR-PORT FAR-PORT PROTOCOL
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <hiredis/hiredis.h>

namespace {

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;
using Reply = std::unique_ptr<redisReply, decltype(&freeReplyObject)>;
constexpr auto kPatience = std::chrono::seconds(20);  // the longest that anything may take
constexpr timeval kTimeout{20, 0};                    // of a socket, as much
constexpr std::string_view kDatabase = "5";

int passed = 0, failed = 0;

void check(const std::string& what, bool good, const std::string& detail = "") {
  (good ? passed : failed) += 1;
  if (!good) std::cout << "FAIL " << what << ": " << detail << std::endl;
}

// Asks until the answer is true, for a while.
bool eventually(const std::function<bool()>& ask) {
  const auto deadline = Clock::now() + kPatience;
  while (Clock::now() < deadline) {
    if (ask()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

// A reply on one line: strings as they are, items separated by spaces.
std::string text(const redisReply* reply) {
  if (reply == nullptr) return "(broken)";
  switch (reply->type) {
    case REDIS_REPLY_INTEGER:
      return std::to_string(reply->integer);
    case REDIS_REPLY_NIL:
      return "(nil)";
    case REDIS_REPLY_ARRAY: {
      std::string all;
      for (std::size_t i = 0; i < reply->elements; ++i) {
        if (i != 0) all += " ";
        all += text(reply->element[i]);
      }
      return all;
    }
    default:
      return {reply->str, reply->len};
  }
}

class Connection {
 public:
  Connection(int port, std::string password, std::string name)
      : port_(port), password_(std::move(password)), name_(std::move(name)) {}
  ~Connection() { redisFree(context_); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // hiredis leaves it to its user to connect again, and to say again who it is.
  bool connect() {
    if (context_ != nullptr) redisFree(context_);
    context_ = redisConnectWithTimeout("127.0.0.1", port_, kTimeout);
    if (context_ == nullptr || context_->err != 0) return false;
    redisSetTimeout(context_, kTimeout);
    greeting_ = call({"AUTH", password_});
    return greeting_ == "OK" && call({"CLIENT", "SETNAME", name_}) == "OK" &&
           call({"SELECT", std::string(kDatabase)}) == "OK";
  }
  const std::string& greeting() const { return greeting_; }

  void send(const Words& words) {
    std::vector<const char*> pieces;
    std::vector<std::size_t> sizes;
    for (const std::string& word : words) {
      pieces.push_back(word.data());
      sizes.push_back(word.size());
    }
    redisAppendCommandArgv(context_, static_cast<int>(words.size()), pieces.data(), sizes.data());
  }
  std::string receive() {
    void* reply = nullptr;
    if (context_ == nullptr || context_->err != 0 || redisGetReply(context_, &reply) != REDIS_OK)
      return "(broken)";
    const Reply owner(static_cast<redisReply*>(reply), freeReplyObject);
    return text(owner.get());
  }
  std::string call(const Words& words) {
    send(words);
    return receive();
  }
  // As call, on a new connection if the old one is broken.
  std::string call_again(const Words& words) {
    std::string answer = call(words);
    if (answer == "(broken)" && connect()) answer = call(words);
    return answer;
  }

 private:
  const int port_;
  const std::string password_, name_;
  redisContext* context_ = nullptr;
  std::string greeting_;
};

std::string every_byte() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  return bytes;
}

std::string megabyte() {
  std::string bytes;
  while (bytes.size() < (1U << 20)) bytes += every_byte();
  return bytes;
}

void check_is(const std::string& what, const std::string& actual, const std::string& expected) {
  check(what, actual == expected, actual.substr(0, 200) + " instead of " + expected.substr(0, 200));
}

void check_commands(Connection& near, Connection& other, Connection& far) {
  near.call({"FLUSHDB"});
  check_is("the name", near.call({"CLIENT", "GETNAME"}), "near");
  check("the database", near.call({"CLIENT", "INFO"}).find(" db=5 ") != std::string::npos);
  constexpr int kMany = 500;
  for (int i = 0; i < kMany; ++i) {
    near.send({"SET", "p:" + std::to_string(i), std::to_string(i)});
    near.send({"GET", "p:" + std::to_string(i)});
  }
  bool in_order = true;
  for (int i = 0; i < kMany; ++i)
    in_order = near.receive() == "OK" && near.receive() == std::to_string(i) && in_order;
  check("a pipeline of 1,000 is answered in order", in_order);
  near.call({"SET", "stock", "3"});
  near.call({"WATCH", "stock"});
  near.call({"MULTI"});
  near.call({"DECR", "stock"});
  check_is("EXEC", near.call({"EXEC"}), "2");
  near.call({"WATCH", "stock"});
  other.call({"SET", "stock", "9"});
  near.call({"MULTI"});
  near.call({"DECR", "stock"});
  check_is("EXEC after a change of a watched key", near.call({"EXEC"}), "(nil)");
  near.call({"HSET", "room", "name", "Room one", "seats", "12"});
  near.call({"HINCRBY", "room", "seats", "30"});
  check("a hash", eventually([&] { return far.call({"HMGET", "room", "name", "seats"}) == "Room one 42"; }));
  for (const auto& [what, value] :
       {std::pair("every byte", every_byte()), std::pair("a megabyte", megabyte())}) {
    near.call({"SET", "bytes", value});
    check(std::string("a value of ") + what, eventually([&] { return far.call({"GET", "bytes"}) == value; }));
  }
}

void check_events(Connection& near, Connection& far, Connection& events) {
  for (Connection* connection : {&near, &far})
    connection->call({"CONFIG", "SET", "notify-keyspace-events", "AKE"});
  events.call({"PSUBSCRIBE", "__keyspace@5__:lock"});
  check_is("SET NX", near.call({"SET", "lock", "1", "PX", "100000", "NX"}), "OK");
  const std::string of_lock = "pmessage __keyspace@5__:lock __keyspace@5__:lock ";
  for (const std::string event : {"set", "expire"})
    check_is("the event " + event, events.receive(), of_lock + event);
  // Only now is its end made near: a site which a change of the key reaches after its time tells that it has
  // expired and nothing else.
  near.call({"PEXPIRE", "lock", "300"});
  std::string last = events.receive();
  if (last == of_lock + "expire") last = events.receive();
  check_is("the event expired", last, of_lock + "expired");
  check_is("an expired key", far.call({"GET", "lock"}), "(nil)");
}

void subscribe(Connection& subscriber) {
  check_is("SUBSCRIBE", subscriber.call({"SUBSCRIBE", "news"}), "subscribe news 1");
  check_is("PSUBSCRIBE", subscriber.call({"PSUBSCRIBE", "pat:*"}), "psubscribe pat:* 2");
  check_is("SSUBSCRIBE", subscriber.call({"SSUBSCRIBE", "shard"}), "ssubscribe shard 1");
}

void check_messages(Connection& near, Connection& subscriber) {
  subscribe(subscriber);
  for (const std::string& payload : {std::string("text"), every_byte(), megabyte()}) {
    near.call({"PUBLISH", "news", payload});
    check_is("a message by channel", subscriber.receive(), "message news " + payload);
    near.call({"PUBLISH", "pat:one", payload});
    check_is("a message by pattern", subscriber.receive(), "pmessage pat:* pat:one " + payload);
    near.call({"SPUBLISH", "shard", payload});
    check_is("a message by shard", subscriber.receive(), "smessage shard " + payload);
  }
  constexpr int kMany = 100;
  for (int i = 0; i < kMany; ++i) near.send({"PUBLISH", "news", std::to_string(i)});
  for (int i = 0; i < kMany; ++i) near.receive();
  bool in_order = true;
  for (int i = 0; i < kMany; ++i)
    in_order = subscriber.receive() == "message news " + std::to_string(i) && in_order;
  check("100 messages in order, each once", in_order);
  check_is("UNSUBSCRIBE", subscriber.call({"UNSUBSCRIBE", "news"}), "unsubscribe news 1");
}

// Messages of other rounds than this may come first: publishing began before the subscription was there.
void check_restart(Connection& near, Connection& far, Connection& subscriber) {
  near.call({"SET", "kept", "over the restart"});
  eventually([&] { return far.call({"GET", "kept"}) == "over the restart"; });
  std::cout << "!restart" << std::endl;
  std::string line;
  std::getline(std::cin, line);
  check("what was acknowledged is there after a kill", eventually([&] {
          return far.call_again({"GET", "kept"}) == "over the restart";
        }));
  check_is("the subscriber is cut off", subscriber.receive(), "(broken)");
  check("the subscriber connects again", eventually([&] { return subscriber.connect(); }));
  subscribe(subscriber);
  check("the near site goes on", eventually([&] { return near.call_again({"PING"}) == "PONG"; }));
  near.call({"PUBLISH", "news", "again"});
  check_is("a message after the restart", subscriber.receive(), "message news again");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const char* secret = std::getenv("COMPAT_PASSWORD");
  const std::string password = secret == nullptr ? "" : secret;
  const int near_port = std::atoi(argv[1]), far_port = std::atoi(argv[2]);
  Connection near(near_port, password, "near"), other(near_port, password, "other"),
      far(far_port, password, "far");
  Connection events(far_port, password, "events"), subscriber(far_port, password, "subscriber");
  bool all = true;
  for (Connection* connection : {&near, &other, &far, &events, &subscriber})
    all = connection->connect() && all;
  check("connect", all);
  Connection wrong(near_port, "wrong", "wrong");
  check("a wrong password is refused", !wrong.connect() && wrong.greeting().rfind("WRONGPASS", 0) == 0,
        wrong.greeting());
  check_commands(near, other, far);
  check_events(near, far, events);
  check_messages(near, subscriber);
  check_restart(near, far, subscriber);
  std::cout << passed << " passed, " << failed << " failed" << std::endl;
  return failed == 0 ? 0 : 1;
}
