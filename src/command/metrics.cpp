#include "src/command/metrics.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>

#include "src/command/command.hpp"
#include "src/command/info.hpp"
#include "src/site/forwarder.hpp"
#include "src/tls/contexts.hpp"

namespace isthmus {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

/// Gathers families in the order in which they are named.
class Page {
 public:
  void gauge(const std::string& name, const std::string& help, double value, Labels labels = {}) {
    ClientMetric& metric = add(name, help, MetricType::Gauge, std::move(labels));
    metric.gauge.value = value;
  }
  void counter(const std::string& name, const std::string& help, double value, Labels labels = {}) {
    ClientMetric& metric = add(name, help, MetricType::Counter, std::move(labels));
    metric.counter.value = value;
  }
  void histogram(const std::string& name, const std::string& help, const DurationHistogram& durations) {
    ClientMetric& metric = add(name, help, MetricType::Histogram, {});
    constexpr std::size_t kCount = DurationHistogram::kBounds.size();
    for (std::size_t i = 0; i < kCount; ++i) {
      metric.histogram.bucket.push_back({durations.cumulative(i), DurationHistogram::kBounds[i]});
    }
    metric.histogram.sample_count = durations.cumulative(kCount);
    metric.histogram.sample_sum = durations.sum_seconds();
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  ClientMetric& add(const std::string& name, const std::string& help, MetricType type, Labels labels) {
    if (families_.empty() || families_.back().name != name) families_.push_back({name, help, type, {}});
    ClientMetric& metric = families_.back().metric.emplace_back();
    metric.label = std::move(labels);
    return metric;
  }
  std::vector<MetricFamily> families_;
};

double number(std::uint64_t value) { return static_cast<double>(value); }

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

void add_process(Page& page, Services& services, std::int64_t now_ms) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  page.gauge("redis_up", "1: this server answers", 1);
  page.gauge("redis_instance_info", "Facts that do not change", 1,
             {{"redis_version", std::string(kRedisVersion)},
              {"isthmus_version", ISTHMUS_VERSION},
              {"redis_mode", "standalone"},
              {"role", "master"}});
  page.gauge("redis_uptime_in_seconds", "Since the start",
             static_cast<double>(now_ms - services.started_ms) / 1000);
  page.counter("redis_cpu_sys_seconds_total", "System CPU time of the process", seconds_of(usage.ru_stime));
  page.counter("redis_cpu_user_seconds_total", "User CPU time of the process", seconds_of(usage.ru_utime));
}

void add_clients(Page& page, Services& services) {
  const Stats& stats = services.stats;
  page.gauge("redis_connected_clients", "Open connections", number(services.clients.count()));
  page.gauge("redis_config_maxclients", "Most connections", number(services.settings.maxclients.load()));
  page.counter("redis_connections_received_total", "Connections taken",
               number(stats.connections_received.load()));
  page.counter("redis_rejected_connections_total", "Connections refused for maxclients",
               number(stats.rejected_connections.load()));
  page.counter("isthmus_slow_subscribers_closed_total",
               "Subscribers closed because they did not read what waited for them",
               number(stats.closed_slow_subscribers.load()));
}

void add_tls(Page& page, const TlsContexts& tls) {
  const TlsStats& stats = tls.stats();
  page.gauge("isthmus_tls_certificate_expiry_timestamp_seconds",
             "When the certificate runs out, or one of its chain before it (Unix time)",
             static_cast<double>(tls.not_after_s()));
  page.gauge("isthmus_tls_files_stale",
             "1: the files have changed and cannot be used; what was loaded before is",
             tls.reload_error().empty() ? 0 : 1);
  page.gauge("isthmus_tls_connections", "Open connections that speak TLS", number(stats.connections.load()));
  page.counter("isthmus_tls_handshakes_total", "TLS handshakes done", number(stats.handshakes.load()));
  page.counter("isthmus_tls_handshake_failures_total", "TLS handshakes that failed; the log has the causes",
               number(stats.failed_handshakes.load()));
  page.counter("isthmus_tls_reloads_total", "Times that certificates were loaded anew",
               number(stats.reloads.load()));
  page.counter("isthmus_tls_reload_failures_total", "Times that new files could not be used",
               number(stats.failed_reloads.load()));
}

void add_memory(Page& page, Services& services) {
  page.gauge("redis_memory_used_bytes", "Keys, connections and uncommitted effects",
             number(used_memory_bytes(services)));
  page.gauge("redis_memory_used_dataset_bytes", "Keys and values", number(services.keyspace.used_bytes()));
  page.gauge("redis_memory_used_rss_bytes", "Resident memory of the process", number(resident_bytes()));
  page.gauge("redis_memory_used_peak_bytes", "Highest redis_memory_used_bytes",
             number(services.stats.peak_memory_bytes.load()));
  page.gauge("redis_memory_max_bytes", "maxmemory; 0: no limit",
             number(services.settings.maxmemory_bytes.load()));
}

void add_commands(Page& page, const Services& services) {
  const Stats& stats = services.stats;
  page.counter("redis_commands_processed_total", "Commands evaluated",
               number(stats.sum([](const ThreadStats& t) -> auto& { return t.commands_processed; })));
  page.gauge("redis_instantaneous_ops_per_sec", "Commands a second", number(stats.ops_per_second()));
  page.counter("redis_net_input_bytes_total", "Bytes from clients",
               number(stats.sum([](const ThreadStats& t) -> auto& { return t.input_bytes; })));
  page.counter("redis_net_output_bytes_total", "Bytes to clients",
               number(stats.sum([](const ThreadStats& t) -> auto& { return t.output_bytes; })));
  page.counter("redis_keyspace_hits_total", "Reads of keys that were there",
               number(stats.sum([](const ThreadStats& t) -> auto& { return t.keyspace_hits; })));
  page.counter("redis_keyspace_misses_total", "Reads of keys that were not",
               number(stats.sum([](const ThreadStats& t) -> auto& { return t.keyspace_misses; })));
  page.counter("redis_expired_keys_total", "Keys that expired", number(stats.expired_keys.load()));
  page.counter("redis_evicted_keys_total", "Always 0: nothing is evicted", 0);
  page.gauge("redis_slowlog_length", "Entries of SLOWLOG", number(stats.slow_length()));
  for (const auto& [word, count] : stats.errors()) {
    page.counter("redis_errors_total", "Error replies by their first word", number(count), {{"err", word}});
  }
}

/// The counters of each command, a family at a time.
void add_per_command(Page& page, const Services& services) {
  const Stats& stats = services.stats;
  const auto each = [&](const auto& counter, const auto& add) {
    for (std::size_t i = 0; i < command_count(); ++i) {
      const std::uint64_t count =
          stats.sum([&](const ThreadStats& t) -> auto& { return counter(t.commands[i]); });
      if (count != 0) add(Labels{{"cmd", std::string(command_at(i).name)}}, count);
    }
  };
  using PerCommand = ThreadStats::PerCommand;
  each(
      [](const PerCommand& of) -> auto& { return of.calls; },
      [&](Labels labels, std::uint64_t count) {
        page.counter("redis_commands_total", "Calls of each command", number(count), std::move(labels));
      });
  each(
      [](const PerCommand& of) -> auto& { return of.nanoseconds; },
      [&](Labels labels, std::uint64_t count) {
        page.counter("redis_commands_duration_seconds_total", "Time in each command", number(count) / 1e9,
                     std::move(labels));
      });
  each(
      [](const PerCommand& of) -> auto& { return of.failed; },
      [&](Labels labels, std::uint64_t count) {
        page.counter("redis_commands_failed_calls_total", "Calls that ended with an error", number(count),
                     std::move(labels));
      });
}

void add_keyspace(Page& page, const Services& services, std::int64_t now_ms) {
  const auto each = [&](const std::string& name, const std::string& help, const auto& get) {
    for (std::size_t i = 0; i < kDatabaseCount; ++i) {
      const auto db = static_cast<std::uint8_t>(i);
      if (db != 0 && services.keyspace.size(db) == 0) continue;
      page.gauge(name, help, static_cast<double>(get(db)), {{"db", "db" + std::to_string(i)}});
    }
  };
  each("redis_db_keys", "Keys of a database", [&](std::uint8_t db) { return services.keyspace.size(db); });
  each("redis_db_keys_expiring", "Keys with a time to live",
       [&](std::uint8_t db) { return services.keyspace.keys_with_deadline(db); });
  each("redis_db_avg_ttl_seconds", "How long those keys have left on average", [&](std::uint8_t db) {
    return static_cast<double>(services.keyspace.average_ttl(db, now_ms)) / 1000;
  });
}

void add_pubsub(Page& page, const Services& services) {
  page.gauge("redis_pubsub_channels", "Channels with subscribers of this server",
             number(services.pubsub.names(ChannelKind::channel)));
  page.gauge("redis_pubsub_patterns", "Patterns with subscribers of this server",
             number(services.pubsub.patterns()));
  page.counter("isthmus_messages_published_total", "Messages that clients of this server published",
               number(services.stats.published_messages.load()));
  page.counter("isthmus_messages_delivered_total", "Messages put into subscribers' queues",
               number(services.stats.delivered_messages.load()));
}

void add_log(Page& page, const Services& services) {
  const Journal& journal = services.journal;
  page.gauge("isthmus_backend_available", "1: the backend takes writes", journal.available() ? 1 : 0);
  page.histogram("isthmus_commit_duration_seconds", "One transaction of effects and messages",
                 journal.stats().commit_time);
  page.counter("isthmus_commits_total", "Transactions", number(journal.stats().commits.load()));
  page.counter("isthmus_log_rows_total", "Rows committed to the log", number(journal.stats().rows.load()));
  page.counter("isthmus_commit_failures_total", "Transactions that the backend refused or lost",
               number(journal.stats().failures.load()));
  page.counter("isthmus_commit_timeouts_total", "Commands answered CLUSTERDOWN after --commit-timeout",
               number(services.stats.commit_timeouts.load()));
  page.gauge("isthmus_log_backlog_bytes", "Effects that wait for their commit",
             number(journal.backlog_bytes()));
  page.counter("isthmus_checkpoints_total", "Checkpoints finished",
               number(journal.stats().checkpoints.load()));
  page.gauge("isthmus_checkpoint_dirty_entries", "Keys and fields that the next checkpoint writes",
             services.checkpointer == nullptr ? 0 : number(services.checkpointer->dirty()));
  page.gauge("isthmus_backend_disk_bytes", "Size of the tables", number(services.log.disk_bytes()));
}

bool reaches_writer(const Services& services) {
  return services.site->is_writer() || (services.forwarder != nullptr && services.forwarder->connected());
}

void add_site(Page& page, const Services& services) {
  const Site& site = *services.site;
  const Site::Stats& stats = site.stats();
  const backend::UpkeepReport report = site.report();
  page.gauge("isthmus_writer", "1: this server is the writer of its site", site.is_writer() ? 1 : 0);
  page.gauge("isthmus_writer_reachable", "1: this server is the writer, or is connected to it",
             reaches_writer(services) ? 1 : 0);
  page.gauge("isthmus_site_servers", "Servers of the site that give signs of life",
             number(report.servers.size()));
  page.gauge("isthmus_feed_up", "1: the change feed is attached", site.feed_healthy() ? 1 : 0);
  page.counter("isthmus_feed_rows_total", "Rows that the feed brought", number(stats.feed_rows.load()));
  page.counter("isthmus_feed_restarts_total", "Times that the feed began anew",
               number(stats.feed_restarts.load()));
  page.counter("isthmus_state_rebuilds_total", "Times that the state was read as a whole while serving",
               number(stats.rebuilds.load()));
  page.counter("isthmus_leases_taken_total", "Times that this server became the writer",
               number(stats.leases_taken.load()));
  page.counter("isthmus_leases_lost_total", "Times that it lost that role", number(stats.leases_lost.load()));
  page.counter("isthmus_forwarded_commands_total", "Commands sent to the writer",
               number(stats.forwarded_commands.load()));
  page.counter("isthmus_served_commands_total", "Commands evaluated for other servers",
               number(stats.served_commands.load()));
  page.counter("isthmus_stale_messages_total", "Messages not delivered because they came too late",
               number(stats.stale_messages.load()));
  page.counter("isthmus_repeated_rows_total", "Rows dropped because they had come before",
               number(stats.repeated_rows.load()));
  page.counter("isthmus_dropped_messages_total", "Messages that an outage kept from other servers",
               number(stats.dropped_messages.load()));
  page.gauge("isthmus_feed_slot_bytes", "WAL that the site's permanent slot keeps",
             number(report.slot_bytes));
  page.gauge("isthmus_database_clock_offset_seconds", "The database's clock minus this server's",
             static_cast<double>(report.clock_offset_ms) / 1000);
  page.gauge("isthmus_log_default_partition_rows",
             "Rows for which no partition was there; 0 unless a clock jumped",
             number(report.default_partition_rows));
}

void add_links(Page& page, const Site& site, std::int64_t now_ms) {
  const Site::Stats& stats = site.stats();
  page.counter("isthmus_foreign_rows_total", "Rows of other sites", number(stats.foreign_rows.load()));
  page.counter("isthmus_conflicts_lost_total",
               "Values of this site that a concurrent one of another replaced",
               number(stats.conflicts_lost.load()));
  page.counter("isthmus_wild_versions_total", "Rows of clocks that are too far ahead",
               number(stats.wild_versions.load()));
  page.counter("isthmus_gaps_found_total", "Times that rows of another site were missing",
               number(stats.gaps_found.load()));
  page.counter("isthmus_gaps_repaired_total", "Times that they were fetched",
               number(stats.gaps_repaired.load()));
  page.counter("isthmus_reseeds_total", "Times that the state of a peer was copied",
               number(stats.reseeds.load()));
  if (site.stable() != 0) {
    page.gauge("isthmus_stable_age_seconds", "Deletions are remembered for so long now",
               static_cast<double>(now_ms - HybridClock::milliseconds(site.stable())) / 1000);
  }
  const std::vector<backend::PeerRow> peers = site.peers();
  const auto each = [&](const std::string& name, const std::string& help, const auto& get) {
    for (const backend::PeerRow& peer : peers) page.gauge(name, help, get(peer), {{"peer", peer.name}});
  };
  using Peer = backend::PeerRow;
  each("isthmus_link_up", "1: rows of the peer come in",
       [](const Peer& p) { return p.state == "up" ? 1.0 : 0.0; });
  each("isthmus_link_lag_seconds", "Age of the newest sign of the peer",
       [](const Peer& p) { return static_cast<double>(p.lag_ms) / 1000; });
  each("isthmus_link_lag_rows", "Rows in the peer's log that are not here",
       [](const Peer& p) { return number(p.lag_rows); });
  each("isthmus_link_slot_bytes", "WAL that is kept here for the peer",
       [](const Peer& p) { return number(p.slot_bytes); });
  each("isthmus_link_clock_offset_seconds", "The peer's database clock minus ours",
       [](const Peer& p) { return static_cast<double>(p.clock_offset_ms) / 1000; });
}

}  // namespace

std::string metrics_text(Services& services, std::int64_t now_ms) {
  Page page;
  add_process(page, services, now_ms);
  add_clients(page, services);
  if (services.tls_port != 0) add_tls(page, *services.tls);
  add_memory(page, services);
  add_commands(page, services);
  add_per_command(page, services);
  add_keyspace(page, services, now_ms);
  add_pubsub(page, services);
  if (services.journal.durable()) add_log(page, services);
  if (services.site != nullptr) {
    add_site(page, services);
    if (services.site->linked()) add_links(page, *services.site, now_ms);
  }
  return page.text();
}

std::string not_ready_because(const Services& services) {
  if (!services.journal.available()) return services.journal.unavailable_reason();
  if (services.site == nullptr) return {};
  if (!services.site->feed_healthy()) return "the change feed is down";
  return reaches_writer(services) ? "" : "there is no writer in reach";
}

}  // namespace isthmus
