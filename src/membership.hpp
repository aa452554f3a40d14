// The parts that a server with a shared log has besides: built together, started and stopped in order.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "src/command/inbox.hpp"
#include "src/command/services.hpp"
#include "src/site/announcer.hpp"
#include "src/site/feed_reader.hpp"
#include "src/site/forwarder.hpp"
#include "src/site/lease.hpp"
#include "src/site/link_keeper.hpp"
#include "src/site/site.hpp"
#include "src/site/upkeep.hpp"

namespace isthmus {

/// This server's membership in its site: lease, feed, forwarding, upkeep and inbox, and who tells whom.
class Membership {
 public:
  /// What it is given outlives it. `services.site` and `services.forwarder` are set by it.
  /// `wake_io` is called when the feed has gone on: requests may wait for that.
  Membership(Site& site, Services& services, Checkpointer& checkpointer, std::function<void()> wake_io);
  ~Membership();

  /// Reads the state. Throws backend::OpenError.
  void load();
  Lease& lease() { return lease_; }
  /// Adds to the journal's hooks what this server as a forwarder to itself needs.
  void add_hooks(Journal::Hooks& hooks);
  /// Starts the threads; the journal has been started.
  void start();
  /// The process ends: the lease goes to another server as soon as the journal has stopped.
  void prepare_stop();
  /// After the journal and the I/O threads have stopped.
  void stop();

 private:
  void connect_parts(Checkpointer& checkpointer);
  void load_links();

  Site& site_;
  Services& services_;
  Lease lease_;
  FeedReader feed_;
  Forwarder forwarder_;
  Upkeep upkeep_;
  LinkKeeper links_;
  Inbox inbox_;
  Announcer announcer_;
};

}  // namespace isthmus
