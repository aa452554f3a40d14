// All links of this site, and what it says to the other sites once a second.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "src/site/link.hpp"

namespace isthmus {

/// A peer as the options name it.
struct PeerOption {
  std::string name;
  std::string conninfo;  ///< secret: may hold a password
};

/// Follows the role of this server: as the writer it keeps a Link for each peer that the database knows, and
/// logs the site's frontier once a second while there are any.
class LinkKeeper {
 public:
  LinkKeeper(Site& site, Journal& journal, Keyspace& keyspace, HybridClock& clock, FeedReader& feed,
             std::vector<PeerOption> peers, std::int64_t tombstone_retention_ms);
  ~LinkKeeper() { stop(); }
  void start();
  void stop();

 private:
  void run();
  bool pause(std::chrono::milliseconds time);
  void round();
  void add_options();
  void follow_peers();
  bool note_given_up(const std::vector<backend::PeerRow>& peers);
  struct Joined {
    backend::Version up_to = 0;
    std::set<backend::SiteId> compared;  // itself, and the peers that are to be copied again for it
  };
  void compare_behind_joins();
  bool compare_behind(backend::SiteId site, Joined& joined, const std::vector<backend::StoredFrontier>& said);
  void end_links();
  void log_frontier();
  void set_pace();

  const std::vector<PeerOption> options_;
  Freeze freeze_;
  std::chrono::microseconds commit_interval_{0};
  std::uint64_t commits_ = 0;  // of the journal, a round ago
  const LinkParts parts_;
  std::unique_ptr<backend::Links> session_;
  bool prepared_ = false;                                                       // the options are in SQL
  std::map<std::string, std::pair<std::string, std::unique_ptr<Link>>> links_;  // by name: conninfo, link
  std::vector<backend::PeerRow> peers_;                                         // a round ago
  std::set<backend::SiteId> expelled_;  // and what of it has been told
  std::map<backend::SiteId, Joined> joined_;
  std::string trouble_;
  std::mutex mutex_;
  std::condition_variable stop_asked_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace isthmus
