#include "src/membership.hpp"

namespace isthmus {

namespace {

std::vector<PeerOption> peer_options(const Config& config) {
  std::vector<PeerOption> peers;
  for (const Config::Peer& peer : config.peers) peers.push_back({peer.name, peer.url});
  return peers;
}

}  // namespace

Membership::Membership(Site& site, Services& services, Checkpointer& checkpointer,
                       std::function<void()> wake_io)
    : site_(site),
      services_(services),
      lease_(site, services.journal, services.keyspace, services.clock, services.config.message_max_age_ms),
      feed_(
          site, services.keyspace, services.clock, services.pubsub,
          {services.config.message_max_age_ms,
           [&settings = services.settings] { return settings.notify_flags.load(std::memory_order_relaxed); },
           services.config.tombstone_retention_ms}),
      forwarder_(site, services.settings.commit_timeout_ms, services.tls),
      upkeep_(site, services.journal, checkpointer, [this] { return feed_.foreign_vector(); }),
      links_(site, services.journal, services.keyspace, services.clock, feed_, peer_options(services.config),
             services.config.tombstone_retention_ms),
      inbox_(services),
      announcer_(site, services.journal, services.pubsub) {
  services.site = &site_;
  services.forwarder = &forwarder_;
  forwarder_.on_applied(std::move(wake_io));
  connect_parts(checkpointer);
}

Membership::~Membership() { stop(); }

void Membership::connect_parts(Checkpointer& checkpointer) {
  checkpointer.set_frontiers([this] { return feed_.frontiers(); });
  lease_.set_hooks({
      .rebuild = [this] { return feed_.rebuild(); },
      .compare = [this](const std::function<void()>& meanwhile) { return feed_.compare(meanwhile); },
      .writer_reachable = [this] { return forwarder_.connected(); },
  });
  feed_.set_hooks({
      .lease =
          [this](const backend::Row& row) {
            lease_.feed_shows(row);
            forwarder_.writer_is(site_.lease());
          },
      .answered = [this](std::uint64_t request,
                         std::string_view reply) { forwarder_.answered(request, reply); },
      .applied = [this](backend::OriginId lease, backend::Seq seq) { forwarder_.applied(lease, seq); },
      .missed_rows =
          [this] {
            forwarder_.missed_rows();
            lease_.missed_rows();
          },
      .inbox = [this](const backend::InboxRow& row) { inbox_.take(row); },
      .subscribers = [this](const backend::Row& row) { announcer_.take(row); },
      .seen =
          [this, &checkpointer](const backend::Vector& seen) {
            if (site_.is_writer()) checkpointer.note_seen(seen);
          },
      .foreign =
          [&checkpointer](const backend::Row& row) {
            // How far its origin is covered `seen` says, which knows of gaps.
            backend::Row noted = row;
            noted.seq = 0;
            checkpointer.note(noted);
          },
      .in_order =
          [this](std::function<void()> deliver, Journal::Deferral what) {
            {
              Journal::Group group(services_.journal);
              group.after_commit(std::move(deliver), what);
            }
            services_.journal.commit_soon();
          },
      .may_leave = [this] { return services_.journal.event_may_leave(); },
      .log_went_back = [this](const LeaseStamp& held) { lease_.log_went_back(held); },
  });
}

void Membership::add_hooks(Journal::Hooks& hooks) {
  hooks.wants_own_answers = [this] { return forwarder_.outstanding() != 0; };
  hooks.own_rows = [this](const backend::RowBatch& rows, const Journal::LeaseStamp& last) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const backend::Row row = rows[i];
      const bool answers = row.requester == site_.server() && row.kind != backend::RowKind::lease;
      if (answers) forwarder_.answered(row.request, row.reply);
    }
    forwarder_.applied(last.lease, last.seq);
  };
}

void Membership::load() {
  try {
    load_links();
    feed_.load();
    std::string why;
    if (!site_.log().connect(why)) throw backend::OpenError(why);
    const backend::LeaseRow lease = site_.log().newest_lease();
    forwarder_.writer_is(lease);
    lease_.begin_after(lease);
    feed_.begin_with(lease);
  } catch (const backend::FeedError& error) {
    throw backend::OpenError(error.what());
  } catch (const backend::AppendError& error) {
    throw backend::OpenError(error.what());
  } catch (const backend::LinkError& error) {
    throw backend::OpenError(error.what());
  }
}

// Whether there are peers decides what is remembered of the state, so it is asked before that is read.
void Membership::load_links() {
  const std::unique_ptr<backend::Links> links = site_.log().open_links();
  if (!services_.config.site.empty()) links->name_site(services_.config.site);
  if (!services_.config.peers.empty()) site_.expect_peers();
  site_.set_peers(links->peers());
  services_.keyspace.set_linked(site_.linked());
  if (site_.linked()) services_.keyspace.set_stable(0);
}

void Membership::start() {
  forwarder_.start();
  feed_.start();
  upkeep_.start();
  links_.start();
  announcer_.start();
}

void Membership::prepare_stop() {
  announcer_.stop();
  lease_.set_willing(false);
  feed_.give_up_tasks();
}

void Membership::stop() {
  announcer_.stop();
  forwarder_.stop();
  site_.end_waits();
  links_.stop();
  feed_.stop();
  upkeep_.stop();
}

}  // namespace isthmus
