// Several sites with the real commands, clock and merge, joined by links that are cut and healed; a toy only
// in what carries the rows. MERGE.md says which rules the runs rest on; each of them left out makes a run
// fail.
#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "src/command/call.hpp"
#include "src/keyspace/digest.hpp"
#include "tests/unit/command/command_runner.hpp"
#include "tests/unit/merge/registers_text.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowBatch;
using backend::RowKind;
using backend::SiteId;

constexpr std::int64_t kSkewMs = 200;  // clocks differ by so much at most

/// Rules that a run may leave out.
struct Rules {
  bool wait_for_stable = true;       ///< or forget what everybody's clock has passed
  bool skip_what_is_covered = true;  ///< of copied rows
  bool add_totals = true;            ///< or write sums
  bool hide_for_skew = true;         ///< expired keys
};

// Keeps the rows of its site for the links.
class ModelLog final : public backend::Log {
 public:
  explicit ModelLog(SiteId site) : site_(site) {}
  bool durable() const override { return true; }
  SiteId site() const override { return site_; }
  void load(backend::LoadSink&) override {}
  void append(const RowBatch& batch) override {
    for (std::size_t i = 0; i < batch.size(); ++i) add(batch[i]);
  }
  void write_checkpoint(const backend::CheckpointChunk&) override {}
  bool forget_flushed(std::uint8_t, Version, SiteId) override { return false; }
  void put_mark(const backend::CheckpointMark&) override {}
  bool cut() override { return false; }
  std::uint64_t disk_bytes() const override { return 0; }
  std::string description() const override { return "model"; }

  void add(const Row& row) {
    RowBatch one;
    one.append(row);
    rows.push_back(std::move(one));
  }
  std::deque<RowBatch> rows;  // one row each; the committing thread adds to it while somebody waits for it

 private:
  const SiteId site_;
};

using Frontiers = std::map<SiteId, std::map<SiteId, Version>>;  // who has folded whom, up to where

class ModelSite {
 public:
  ModelSite(SiteId id, std::size_t sites, std::int64_t offset_ms, const Rules& rules)
      : id_(id), sites_(sites), offset_ms_(offset_ms), rules_(rules) {
    start();
    cursors.resize(sites + 1);
  }
  ~ModelSite() { runner_->journal().stop(std::chrono::milliseconds{1000}); }

  SiteId id() const { return id_; }
  Keyspace& keyspace() { return runner_->keyspace(); }
  std::deque<RowBatch>& rows() { return log_->rows; }
  std::int64_t now(std::int64_t t) const { return CommandRunner::kStart + t + offset_ms_; }

  void run(std::int64_t t, const std::vector<std::string_view>& args) {
    runner_->set_now(now(t));
    reply = runner_->run(args);
    Journal& journal = runner_->journal();
    journal.commit_soon();
    while (journal.committed() < journal.appended()) std::this_thread::yield();
  }

  void tick(std::int64_t t) {
    runner_->set_now(now(t));
    for (std::size_t i = 0; i < kShards; ++i) {
      if (keyspace().shards()[i].next_deadline.load() <= now(t))
        Evaluation(runner_->services(), now(t)).expire_due(i, 64, 0);
      keyspace().collect(i, 1000, [](const Key&) {});
    }
    Journal& journal = runner_->journal();
    journal.commit_soon();
    while (journal.committed() < journal.appended()) std::this_thread::yield();
  }

  void say_frontier(std::int64_t t) {
    Row row;
    row.kind = RowKind::frontier;
    row.site = id_;
    row.version = runner_->clock().next(now(t));
    said[id_][id_] = row.version;
    std::string text;
    for (const auto& [site, version] : said[id_])
      text += std::to_string(site) + "=" + std::to_string(version) + " ";
    row.value = text;
    log_->add(row);
  }

  void receive(const Row& row, std::int64_t t) {
    if (row.kind == RowKind::frontier) {
      hear(row);
      return;
    }
    runner_->clock().observe_foreign(row.version, now(t));
    fold_row(keyspace(), row);
  }

  void hear(const Row& row) {
    std::string_view text = row.value;
    while (!text.empty()) {
      const std::string item(text.substr(0, text.find(' ')));
      text.remove_prefix(item.size() + 1);
      const std::size_t equals = item.find('=');
      Version& known = said[row.site][std::stoll(item)];
      known = std::max<Version>(known, std::stoull(item.substr(equals + 1)));
    }
    said[id_][row.site] = std::max(said[id_][row.site], row.version);
  }

  void settle_stable(std::int64_t t) {
    Version stable = std::numeric_limits<Version>::max();
    for (SiteId a = 1; a <= static_cast<SiteId>(sites_); ++a) {
      for (SiteId b = 1; b <= static_cast<SiteId>(sites_); ++b) stable = std::min(stable, said[a][b]);
    }
    if (!rules_.wait_for_stable) stable = static_cast<Version>(now(t)) << HybridClock::kCounterBits;
    stable_ = std::max(stable_, stable);
    keyspace().set_stable(stable_);
  }

  // The rows of another site's state, but for what the own frontier covers: that is here, or was deleted.
  void copy_from(ModelSite& other, std::int64_t t) {
    const std::map<SiteId, Version> mine = said[id_];
    std::vector<RowBatch> copied;
    for_each_copied_row(other.keyspace(), [&](const Row& row) {
      const auto known = mine.find(row.site);
      const bool covered = known != mine.end() && row.version <= known->second;
      if (covered && rules_.skip_what_is_covered && row.kind != RowKind::srem) return;
      copied.emplace_back().append(row);
    });
    for (const RowBatch& one : copied) {
      runner_->clock().observe_foreign(one[0].version, now(t));
      fold_row(keyspace(), one[0]);
    }
  }

  // What a backup holds, and the site as it comes back from it: with a new lease, knowing what it knew then.
  struct Backup {
    std::vector<RowBatch> state;
    Frontiers said;
    std::vector<std::size_t> cursors;
    std::size_t own_rows = 0;
    Version stable = 0;
  };
  Backup back_up() {
    Backup backup{{}, said, cursors, rows().size(), stable_};
    for_each_copied_row(keyspace(), [&](const Row& row) { backup.state.emplace_back().append(row); });
    return backup;
  }
  void restore(const Backup& backup, std::size_t own_rows) {
    runner_->journal().stop(std::chrono::milliseconds{1000});
    std::deque<RowBatch> kept = std::move(log_->rows);
    kept.resize(std::min(kept.size(), own_rows));
    start();
    log_->rows = std::move(kept);
    said = backup.said;
    cursors = backup.cursors;
    stable_ = backup.stable;
    runner_->clock().observe(said[id_][id_]);
    for (const RowBatch& one : backup.state) {
      runner_->clock().observe(one[0].version);
      fold_row(keyspace(), one[0]);
    }
    // Rows of its own that others have: they are pulled back.
    for (std::size_t i = backup.own_rows; i < log_->rows.size(); ++i) {
      const Row row = log_->rows[i][0];
      runner_->clock().observe(row.version);
      if (backend::is_state(row.kind)) fold_row(keyspace(), row);
    }
  }

  std::vector<std::size_t> cursors;  // of each other site's rows, by id
  Frontiers said;
  std::string reply;

 private:
  void start() {
    auto log = std::make_unique<ModelLog>(id_);
    log_ = log.get();
    runner_ = std::make_unique<CommandRunner>(std::move(log));
    keyspace().set_site(id_);
    keyspace().set_linked(rules_.add_totals);
    keyspace().set_stable(0);
    keyspace().set_max_clock_skew(rules_.hide_for_skew ? kSkewMs : -10'000);
    runner_->clock().set_max_skew(kSkewMs);
    Journal::Hooks hooks;
    hooks.after_commit = [] {};
    runner_->journal().start(nullptr, nullptr, std::move(hooks));
  }

  const SiteId id_;
  const std::size_t sites_;
  const std::int64_t offset_ms_;
  const Rules rules_;
  Version stable_ = 0;
  ModelLog* log_ = nullptr;
  std::unique_ptr<CommandRunner> runner_;
};

using Commands = std::vector<std::vector<std::string_view>>;

const Commands kAllCommands = {{"SET", "s", "1"},
                               {"SET", "s", "2", "PX", "30"},
                               {"DEL", "s"},
                               {"APPEND", "s", "x"},
                               {"HSET", "h", "f", "1"},
                               {"HSET", "h", "g", "2", "f", "3"},
                               {"HDEL", "h", "f"},
                               {"HDEL", "h", "f", "g"},
                               {"DEL", "h"},
                               {"PEXPIRE", "h", "40"},
                               {"PEXPIRE", "s", "200"},
                               {"PERSIST", "h"},
                               {"INCR", "n"},
                               {"INCR", "n"},
                               {"PEXPIRE", "n", "30"},
                               {"DEL", "n"},
                               {"SET", "n", "10"},
                               {"HINCRBY", "m", "f", "1"},
                               {"HINCRBY", "m", "g", "1"},
                               {"HDEL", "m", "f"},
                               {"DEL", "m"},
                               {"PEXPIRE", "m", "30"},
                               {"RENAME", "s", "h"},
                               {"HSET", "s", "f", "1"},
                               {"SET", "h", "1"},
                               {"GETDEL", "s"},
                               {"INCRBY", "exact", "3"},
                               {"INCRBY", "exact", "-1"},
                               {"HINCRBY", "exact:h", "f", "2"},
                               {"SADD", "t", "a", "b"},
                               {"SREM", "t", "a"},
                               {"SPOP", "t"},
                               {"DEL", "t"},
                               {"PEXPIRE", "t", "40"},
                               {"SADD", "h", "a"},
                               {"SADD", "s", "f"},
                               {"SUNIONSTORE", "t", "t", "h"},
                               {"HSET", "t", "f", "1"}};

// Little else than what makes a hash come, go and expire: conflicts are denser.
const Commands kHashCommands = [] {
  Commands commands;
  for (const std::string_view key : {"h", "i", "j"}) {
    for (const std::string_view field : {"e", "f", "g"}) {
      for (const std::string_view value : {"1", "2", "3", "4"})
        commands.push_back({"HSET", key, field, value});
      commands.insert(commands.end(), 2, {"HDEL", key, field});
    }
    commands.insert(commands.end(), 3, {"DEL", key});
    commands.insert(commands.end(), 3, {"PERSIST", key});
    for (const std::string_view ms : {"25", "150", "1000"})
      commands.insert(commands.end(), 2, {"PEXPIRE", key, ms});
  }
  return commands;
}();

// The same of a set; two keys, so that members move.
const Commands kSetCommands = [] {
  Commands commands;
  for (const std::string_view key : {"h", "i", "j"}) {
    for (const std::string_view member : {"e", "f", "g"}) {
      commands.insert(commands.end(), 4, {"SADD", key, member});
      commands.insert(commands.end(), 2, {"SREM", key, member});
      commands.push_back({"SMOVE", key, key == "h" ? "i" : "h", member});
    }
    commands.push_back({"SPOP", key});
    commands.push_back({"DEL", key});
    commands.push_back({"PERSIST", key});
    commands.push_back({"SDIFFSTORE", key, "h", "i"});
    commands.push_back({"SET", key, "1"});
    commands.push_back({"HSET", key, "e", "1"});
    for (const std::string_view ms : {"25", "150", "1000"}) commands.push_back({"PEXPIRE", key, ms});
  }
  return commands;
}();

// Members that nothing but SREM takes out.
const Commands kExactSetCommands = [] {
  Commands commands;
  for (const std::string_view member : {"e", "f", "g"}) {
    commands.insert(commands.end(), 2, {"SADD", "h", member});
    commands.push_back({"SREM", "h", member});
  }
  return commands;
}();

class Model {
 public:
  Model(std::uint32_t seed, const Rules& rules, const Commands& commands)
      : random_(seed), rules_(rules), commands_(commands) {
    const std::size_t count = &commands == &kAllCommands ? 3 + below(3) : 3;
    for (std::size_t i = 0; i < count; ++i) {
      const std::int64_t offset = static_cast<std::int64_t>(below(kSkewMs)) - kSkewMs / 2;
      sites_.push_back(std::make_unique<ModelSite>(static_cast<SiteId>(i + 1), count, offset, rules));
    }
  }

  /// Empty if all went well.
  std::string run() {
    for (std::int64_t t = 0; t < kBusyMs; t += kStepMs) busy_step(t);
    cut_.clear();
    std::int64_t t = kBusyMs;
    for (; t < kBusyMs + kQuietMs; t += kStepMs) quiet_step(t);
    if (std::string problem = compare(t); !problem.empty()) return problem;
    if (std::string problem = check_adds(t); !problem.empty()) return problem;
    return delete_all(t);
  }

 private:
  static constexpr std::int64_t kStepMs = 5, kGoBackMs = 2900, kBusyMs = 3000, kQuietMs = 2000;

  std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(random_() % end); }
  bool chance(double of_one) { return std::uniform_real_distribution<>(0, 1)(random_) < of_one; }
  ModelSite& any_site() { return *sites_[below(static_cast<std::uint32_t>(sites_.size()))]; }

  void busy_step(std::int64_t t) {
    const auto count = static_cast<std::uint32_t>(sites_.size());
    if (chance(.06)) cut_.insert({below(count) + 1, below(count) + 1});
    if (t > kGoBackMs - 300 && t <= kGoBackMs) cut_.clear();
    if (!cut_.empty() && chance(.05))
      cut_.erase(std::next(cut_.begin(), below(static_cast<std::uint32_t>(cut_.size()))));
    for (auto& site : sites_) {
      if (chance(.35) && has_caught_up(*site)) command(*site, t);
    }
    quiet_step(t);
    // What a site has seen is counted by the rows that the links brought.
    if (&commands_ != &kExactSetCommands) meet_trouble(t);
  }

  // A site that went back in time counts on what the others have forgotten, until it knows what it knew.
  bool has_caught_up(const ModelSite& site) const {
    for (std::size_t i = 0; i < before_.size() && site.id() == sites_[victim_]->id(); ++i) {
      if (site.cursors[i] < before_[i]) return false;
    }
    return true;
  }

  // A site goes back to a backup, or takes the state of another one over.
  void meet_trouble(std::int64_t t) {
    if (t == kGoBackMs - 600) {
      victim_ = below(static_cast<std::uint32_t>(sites_.size()));
      backup_ = sites_[victim_]->back_up();
    }
    if (t == kGoBackMs) go_back(t);
    if (t > kBusyMs / 2 && t % 100 == 0) {
      ModelSite& to = any_site();
      ModelSite& from = any_site();
      if (&to != &from) to.copy_from(from, t);
    }
  }

  // Rows that nobody has are lost; others may have them and then they count.
  void go_back(std::int64_t t) {
    ModelSite& site = *sites_[victim_];
    std::size_t kept = backup_.own_rows;
    for (auto& other : sites_) {
      if (other->id() != site.id())
        kept = std::max(kept, other->cursors[static_cast<std::size_t>(site.id())]);
    }
    before_ = site.cursors;
    site.restore(backup_, kept);
    std::erase_if(counted_, [&](const Counted& c) { return c.site == site.id() && c.rows > kept; });
    for (auto& other : sites_) {
      if (other->id() != site.id()) other->copy_from(site, t);
    }
    site.settle_stable(t);
    site.tick(t);
  }

  void quiet_step(std::int64_t t) {
    for (auto& site : sites_) {
      if (t % 25 == 0) site->say_frontier(t);
    }
    for (auto& to : sites_) {
      for (auto& from : sites_) deliver(*from, *to, t);
      to->settle_stable(t);
      to->tick(t);
    }
  }

  void deliver(ModelSite& from, ModelSite& to, std::int64_t t) {
    if (&from == &to || cut_.contains({from.id(), to.id()})) return;
    std::size_t& cursor = to.cursors[static_cast<std::size_t>(from.id())];
    static constexpr std::size_t kBursts[] = {0, 1, 3, 100};
    std::size_t count = t >= kBusyMs ? 1'000'000 : kBursts[below(4)];
    for (; count > 0 && cursor < from.rows().size(); --count, ++cursor) to.receive(from.rows()[cursor][0], t);
  }

  void command(ModelSite& site, std::int64_t t) {
    if (&commands_ == &kExactSetCommands) {
      exact_command(site, t);
      return;
    }
    if (chance(.004)) {
      site.run(t, {"SELECT", "1"});
      site.run(t, {"FLUSHDB"});
    } else if (chance(.05)) {
      site.run(t, {"SELECT", "1"});
      site.run(t, {"INCR", "n"});
    }
    site.run(t, {"SELECT", "0"});
    const auto& args = commands_[below(static_cast<std::uint32_t>(commands_.size()))];
    site.run(t, args);
    if (args[0].find("INCRBY") == std::string_view::npos || !args[1].starts_with("exact")) return;
    counted_.push_back({site.id(), site.rows().size(), args[1], std::stoll(std::string(args.back()))});
  }

  void exact_command(ModelSite& site, std::int64_t t) {
    const auto& args = commands_[below(static_cast<std::uint32_t>(commands_.size()))];
    const std::string_view member = args[2];
    site.run(t, args);
    if (args[0] == "SADD") {
      adds_.push_back({site.id(), site.rows().size(), member});
      return;
    }
    std::erase_if(adds_, [&](const Add& add) {
      const bool seen = add.site == site.id() || site.cursors[static_cast<std::size_t>(add.site)] >= add.rows;
      return add.member == member && seen;
    });
  }

  // A member is there if somebody has added it whom no removal has seen.
  std::string check_adds(std::int64_t t) {
    if (&commands_ != &kExactSetCommands) return {};
    for (const std::string_view member : {"e", "f", "g"}) {
      const bool is_there =
          std::any_of(adds_.begin(), adds_.end(), [&](const Add& add) { return add.member == member; });
      sites_[0]->run(t, {"SISMEMBER", "h", member});
      if (sites_[0]->reply != (is_there ? ":1\r\n" : ":0\r\n"))
        return std::string(member) + (is_there ? " is lost" : " came back");
    }
    return {};
  }

  std::int64_t counted(std::string_view key) const {
    std::int64_t sum = 0;
    for (const Counted& count : counted_) {
      if (count.key == key) sum += count.by;
    }
    return sum;
  }

  std::string compare(std::int64_t t) {
    std::string first;
    for (auto& site : sites_) {
      std::string state =
          text_of(site->keyspace(), 0, site->now(t)) + " / " + text_of(site->keyspace(), 1, site->now(t));
      if (first.empty()) first = state;
      if (state != first) return "diverged:\n" + first + "\n" + state;
      if (digest(site->keyspace(), site->now(t)) != digest(sites_[0]->keyspace(), sites_[0]->now(t)))
        return "digests differ";
    }
    return check_counters(t);
  }

  std::string check_counters(std::int64_t t) {
    ModelSite& site = *sites_[0];
    site.run(t, {"SELECT", "0"});
    site.run(t, {"GET", "exact"});
    const std::string sum = std::to_string(counted("exact"));
    if (counted("exact") != 0 && site.reply.find("\r\n" + sum + "\r\n") == std::string::npos)
      return "exact is " + site.reply + ", should be " + sum;
    site.run(t, {"HGET", "exact:h", "f"});
    const std::string fields = std::to_string(counted("exact:h"));
    if (counted("exact:h") != 0 && site.reply.find("\r\n" + fields + "\r\n") == std::string::npos)
      return "exact:h is " + site.reply + ", should be " + fields;
    return {};
  }

  // Deleted stays deleted, and is forgotten in the end.
  std::string delete_all(std::int64_t t) {
    ModelSite& site = any_site();
    for (const std::string_view db : {"0", "1"}) {
      site.run(t, {"SELECT", db});
      for (const std::string_view key : {"s", "h", "i", "j", "n", "m", "t", "exact", "exact:h"})
        site.run(t, {"DEL", key});
    }
    for (const std::int64_t end = t + kQuietMs; t < end; t += kStepMs) {
      quiet_step(t);
      ModelSite& to = any_site();
      ModelSite& from = any_site();
      if (&to != &from) to.copy_from(from, t);
    }
    for (auto& each : sites_) {
      const std::string left = text_of(each->keyspace(), 0, 0) + text_of(each->keyspace(), 1, 0);
      if (!left.empty()) return "came back: " + left;
      std::size_t nodes = 0;
      for (Shard& shard : each->keyspace().shards()) {
        for (const Table& table : shard.tables) nodes += table.size();
      }
      if (nodes != 0) return "remembers " + std::to_string(nodes) + " keys for ever";
    }
    return {};
  }

  // An increment of a counter that nobody deletes, and how many rows its site had then.
  struct Counted {
    SiteId site;
    std::size_t rows;
    std::string_view key;
    std::int64_t by;
  };
  // An add of a member, and how many rows its site had then.
  struct Add {
    SiteId site;
    std::size_t rows;
    std::string_view member;
  };
  std::vector<Add> adds_;  // those that no removal has seen
  std::mt19937 random_;
  const Rules rules_;
  const Commands& commands_;
  std::vector<Counted> counted_;
  std::vector<std::unique_ptr<ModelSite>> sites_;
  std::set<std::pair<SiteId, SiteId>> cut_;
  ModelSite::Backup backup_;
  std::vector<std::size_t> before_;  // what the site that went back had received
  std::size_t victim_ = 0;
};

// Whether one of so many runs goes wrong.
bool fails(const Rules& rules, const Commands& commands, std::uint32_t seeds) {
  for (std::uint32_t seed = 0; seed < seeds; ++seed) {
    if (!Model(seed, rules, commands).run().empty()) return true;
  }
  return false;
}

TEST(LinkedSites, EndEqualWithDeletedKeysGoneAndCountersExact) {
  for (std::uint32_t seed = 0; seed < 15; ++seed) {
    ASSERT_EQ(Model(seed, {}, kAllCommands).run(), "") << "seed " << seed;
    ASSERT_EQ(Model(seed, {}, kHashCommands).run(), "") << "seed " << seed << ", hashes";
    ASSERT_EQ(Model(seed, {}, kSetCommands).run(), "") << "seed " << seed << ", sets";
  }
}

TEST(LinkedSites, KeepAMemberThatWasAddedBesideItsRemoval) {
  for (std::uint32_t seed = 0; seed < 30; ++seed)
    ASSERT_EQ(Model(seed, {}, kExactSetCommands).run(), "") << "seed " << seed;
}

TEST(LinkedSites, DoNotWhenSomethingIsForgottenBeforeItIsStable) {
  EXPECT_TRUE(fails({.wait_for_stable = false}, kHashCommands, 100));
}
TEST(LinkedSites, DoNotWhenCopiedRowsAreTakenThatAreCovered) {
  EXPECT_TRUE(fails({.skip_what_is_covered = false}, kHashCommands, 100));
}
TEST(LinkedSites, DoNotWhenSumsAreWrittenInsteadOfTotals) {
  EXPECT_TRUE(fails({.add_totals = false}, kAllCommands, 100));
}
TEST(LinkedSites, DoNotWhenExpiredKeysAreForgottenAtOnce) {
  EXPECT_TRUE(fails({.hide_for_skew = false}, kHashCommands, 100));
}

}  // namespace
}  // namespace isthmus
