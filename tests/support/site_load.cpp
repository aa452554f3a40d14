#include "tests/support/site_load.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>

namespace isthmus::test {
namespace {

// A client whose server refuses or is away asks again after so long.
constexpr milliseconds kPause{10};
// Every client: faster ones would only fill the log.
constexpr milliseconds kPace{1};
// Of so many keys the last one is deleted again.
constexpr int kDeleted = 4;

constexpr const char* kCounter = "counter";

// The first keys in which two states differ.
std::string difference(const std::map<std::string, std::string>& a,
                       const std::map<std::string, std::string>& b) {
  std::vector<std::pair<std::string, std::string>> only;
  std::set_symmetric_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only));
  std::string text = std::to_string(only.size()) + " values";
  for (std::size_t i = 0; i < std::min<std::size_t>(only.size(), 6); ++i) {
    text += ", " + only[i].first + " = " + only[i].second;
  }
  return text;
}

}  // namespace

SiteLoad::SiteLoad(std::vector<int> ports) : ports_(std::move(ports)) {
  for (const int port : ports_) {
    const int number = static_cast<int>(publishers_.size());
    publishers_.push_back(std::make_unique<Publisher>(Publisher{port, "p" + std::to_string(number), {}}));
    subscribers_.push_back(std::make_unique<Subscriber>());
    subscribers_.back()->port = port;
  }
  std::atomic<std::size_t> ready{0};
  for (const auto& subscriber : subscribers_) {
    subscriber_threads_.emplace_back([this, &ready, &subscriber] { receive(*subscriber, ready); });
  }
  while (ready.load() != subscribers_.size()) std::this_thread::yield();
  int number = 0;
  for (const int port : ports_) {
    threads_.emplace_back([this, port] { increment(port); });
    threads_.emplace_back([this, port, number] { set_and_delete(port, number); });
    threads_.emplace_back([this, port, number] { race(port, number); });
    threads_.emplace_back([this, number] { publish(*publishers_[static_cast<std::size_t>(number)]); });
    ++number;
  }
}

void SiteLoad::receive(Subscriber& subscriber, std::atomic<std::size_t>& ready) {
  Client client(subscriber.port);
  client.subscribe("PSUBSCRIBE", {"p*"});
  ++ready;
  while (!subscribers_stop_.load()) {
    try {
      const auto message = client.message_within(milliseconds(50));
      if (!message) continue;
      const std::lock_guard lock(mutex_);
      subscriber.received[message->channel].push_back(std::stoi(message->payload));
    } catch (const Closed&) {
      const std::lock_guard lock(mutex_);
      subscriber.whole = false;
      return;
    }
  }
}

bool SiteLoad::acknowledges(int count) {
  const std::uint64_t target = acknowledged_.load() + static_cast<std::uint64_t>(count);
  return eventually([&] { return acknowledged_.load() >= target; });
}

void SiteLoad::stop() {
  stopping_.store(true);
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  const auto everything_came = [this] {
    const std::lock_guard lock(mutex_);
    for (const auto& subscriber : subscribers_) {
      if (!subscriber->whole) continue;
      for (const auto& publisher : publishers_) {
        const std::vector<int>& got = subscriber->received[publisher->channel];
        if (!publisher->acknowledged.empty() && (got.empty() || got.back() < publisher->acknowledged.back()))
          return false;
      }
    }
    return true;
  };
  if (!subscriber_threads_.empty()) eventually(everything_came);
  subscribers_stop_.store(true);
  for (std::thread& thread : subscriber_threads_) thread.join();
  subscriber_threads_.clear();
}

// What became of a command: anything that is not a reply is unknown, as are most errors.
SiteLoad::Told SiteLoad::ask(std::unique_ptr<Client>& client, const std::vector<std::string_view>& args,
                             Value& reply) {
  try {
    reply = client->call(args);
  } catch (const std::exception&) {
    client.reset();
    ++unknown_;
    return Told::unknown;
  }
  if (!reply.is_error()) {
    ++acknowledged_;
    return Told::done;
  }
  if (!reply.text.starts_with("CLUSTERDOWN ")) {
    const std::lock_guard lock(mutex_);
    wrong_.push_back(reply.text);
  }
  std::this_thread::sleep_for(kPause);
  if (reply.text.starts_with("CLUSTERDOWN The log refuses writes")) return Told::refused;
  ++unknown_;
  return Told::unknown;
}

void SiteLoad::run(int port, const Work& work) {
  std::unique_ptr<Client> client;
  while (!stopping_.load()) {
    if (client == nullptr) {
      try {
        client = std::make_unique<Client>(port);
      } catch (const std::exception&) {
        std::this_thread::sleep_for(kPause);
        continue;
      }
    }
    work(client);
    std::this_thread::sleep_for(kPace);
  }
}

void SiteLoad::increment(int port) {
  run(port, [this](std::unique_ptr<Client>& client) {
    Value reply;
    const Told told = ask(client, {"INCR", kCounter}, reply);
    if (told == Told::done) ++increments_;
    if (told == Told::unknown) ++unknown_increments_;
  });
}

void SiteLoad::set_and_delete(int port, int number) {
  int n = 0;
  run(port, [&](std::unique_ptr<Client>& client) {
    const std::string name = "set:" + std::to_string(number) + ":" + std::to_string(n);
    const std::string value = "v" + std::to_string(n);
    Value reply;
    Key key;
    const Told told = ask(client, {"SET", name, value}, reply);
    if (told != Told::done) key.possible.insert("");
    if (told != Told::refused) key.possible.insert(value);
    if (n++ % kDeleted == 0 && client != nullptr) {
      const Told deleted = ask(client, {"DEL", name}, reply);
      if (deleted == Told::done) key.possible = {""};
      if (deleted == Told::unknown) key.possible.insert("");
    }
    const std::lock_guard lock(mutex_);
    keys_[name] = std::move(key);
  });
}

void SiteLoad::race(int port, int number) {
  int n = 0;
  run(port, [&](std::unique_ptr<Client>& client) {
    const std::string name = "nx:" + std::to_string(n++);
    const std::string value = std::to_string(number) + " " + std::to_string(n);
    Value reply;
    const Told told = ask(client, {"SET", name, value, "NX"}, reply);
    const std::lock_guard lock(mutex_);
    if (told == Told::done && reply.text == "OK" && !winners_.emplace(name, value).second) {
      ADD_FAILURE() << name << " was won twice: " << winners_[name] << ", " << value;
    }
  });
}

void SiteLoad::publish(Publisher& publisher) {
  int n = 0;
  run(publisher.port, [&](std::unique_ptr<Client>& client) {
    Value reply;
    if (ask(client, {"PUBLISH", publisher.channel, std::to_string(n)}, reply) == Told::done) {
      const std::lock_guard lock(mutex_);
      publisher.acknowledged.push_back(n);
    }
    ++n;
  });
}

std::vector<std::string> SiteLoad::wrong_errors() {
  const std::lock_guard lock(mutex_);
  return wrong_;
}

std::map<std::string, std::string> SiteLoad::state_of(int port) const {
  Client client(port);
  std::map<std::string, std::string> state;
  const Value keys = client.call({"KEYS", "*"});
  std::vector<std::string_view> get = {"MGET"};
  for (const Value& key : keys.items) get.emplace_back(key.text);
  if (get.size() == 1) return state;
  const Value values = client.call(get);
  for (std::size_t i = 0; i < keys.items.size(); ++i) {
    if (!values.items.at(i).is_null()) state[keys.items[i].text] = values.items[i].text;
  }
  return state;
}

void SiteLoad::judge_keys(const std::map<std::string, std::string>& state) {
  const auto value_of = [&](const std::string& name) {
    const auto it = state.find(name);
    return it == state.end() ? std::string() : it->second;
  };
  int shown = 0;
  for (const auto& [name, key] : keys_) {
    if (key.possible.contains(value_of(name)) || ++shown > 5) continue;
    ADD_FAILURE() << name << " is '" << value_of(name) << "', should be '" << *key.possible.rbegin() << "'";
  }
  for (const auto& [name, value] : winners_) {
    if (value_of(name) == value || ++shown > 5) continue;
    ADD_FAILURE() << name << " is '" << value_of(name) << "', was won by '" << value << "'";
  }
}

void SiteLoad::judge_messages(bool all) {
  for (const auto& subscriber : subscribers_) {
    for (const auto& publisher : publishers_) {
      const std::vector<int>& got = subscriber->received[publisher->channel];
      const auto wrong = std::adjacent_find(got.begin(), got.end(), std::greater_equal<>());
      if (wrong != got.end()) {
        ADD_FAILURE() << publisher->channel << " on port " << subscriber->port << ": " << *wrong << " before "
                      << *(wrong + 1);
      }
      if (!all || !subscriber->whole) continue;
      std::vector<int> missing;
      std::set_difference(publisher->acknowledged.begin(), publisher->acknowledged.end(), got.begin(),
                          got.end(), std::back_inserter(missing));
      if (missing.empty()) continue;
      ADD_FAILURE() << publisher->channel << " (from port " << publisher->port << ") on port "
                    << subscriber->port << ": " << missing.size() << " acknowledged messages are missing, "
                    << missing.front() << " … " << missing.back();
    }
  }
}

void SiteLoad::judge(const std::function<std::map<std::string, std::string>()>& current, Expected expected) {
  std::map<std::string, std::string> first, other;
  EXPECT_TRUE(eventually([&] {
    first = state_of(ports_.front());
    other = current();
    if (first != other) return false;
    return std::all_of(ports_.begin(), ports_.end(),
                       [&](int port) { return (other = state_of(port)) == first; });
  })) << "servers and SQL differ: "
      << difference(first, other);
  const std::lock_guard lock(mutex_);
  judge_keys(first);
  const std::uint64_t sum = first.contains(kCounter) ? std::stoull(first[kCounter]) : 0;
  if (expected.exact_counter) {
    EXPECT_GE(sum, increments_.load());
  }
  EXPECT_LE(sum, increments_.load() + unknown_increments_.load());
  judge_messages(expected.all_messages);
  for (std::size_t i = 0; i < std::min<std::size_t>(wrong_.size(), 5); ++i) {
    ADD_FAILURE() << "an error that is no CLUSTERDOWN: " << wrong_[i];
  }
}

}  // namespace isthmus::test
