// INFO (https://redis.io/docs/latest/commands/info/): one function a section, fields named and ordered as
// Redis 7.0 has them.
#include "src/command/info.hpp"

#include <algorithm>
#include <array>
#include <concepts>
#include <cstdio>
#include <fstream>
#include <initializer_list>

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "src/command/command.hpp"
#include "src/command/sites.hpp"
#include "src/observe/allocator.hpp"
#include "src/tls/contexts.hpp"

namespace isthmus {
namespace {

// The text of one section: its title, then name:value lines.
class Section {
 public:
  Section(std::string& out, std::string_view title) : out_(out) {
    if (!out_.empty()) out_ += "\r\n";
    out_.append("# ").append(title).append("\r\n");
  }
  Section& field(std::string_view name, std::string_view value) {
    out_.append(name).append(1, ':').append(value).append("\r\n");
    return *this;
  }
  template <std::integral Integer>
  Section& field(std::string_view name, Integer value) {
    return field(name, std::string_view(std::to_string(value)));
  }
  Section& field(std::string_view name, double value, int digits) {
    std::array<char, 64> text;
    const int size = std::snprintf(text.data(), text.size(), "%.*f", digits, value);
    return field(name, std::string_view(text.data(), static_cast<std::size_t>(size)));
  }
  Section& bytes(std::string_view name, std::uint64_t value) {
    field(name, value);
    return field(std::string(name) + "_human", human_bytes(value));
  }
  /// Fields that Redis has and that are always 0 here, because there is nothing to count.
  Section& zeros(std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) field(name, 0);
    return *this;
  }

 private:
  std::string& out_;
};

struct Context {
  Services& services;
  std::int64_t now_ms;
};

double ratio(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

std::string percentage(std::uint64_t a, std::uint64_t b) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "%.2f%%", ratio(a, b) * 100);
  return text.data();
}

std::string operating_system() {
  utsname names{};
  if (uname(&names) != 0) return "unknown";
  return std::string(names.sysname) + " " + names.release + " " + names.machine;
}

std::string executable_path() {
  std::array<char, 4096> path;
  const ssize_t size = readlink("/proc/self/exe", path.data(), path.size());
  return size <= 0 ? std::string() : std::string(path.data(), static_cast<std::size_t>(size));
}

std::uint64_t system_memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
  return pages <= 0 || page_size <= 0
             ? 0
             : static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_size);
}

void server_section(const Context& context, std::string& out) {
  const Services& services = context.services;
  const std::int64_t uptime_s = (context.now_ms - services.started_ms) / 1000;
  constexpr std::int64_t kSecondsOfDay = 86'400;
  constexpr std::int64_t kLruMask = (1 << 24) - 1;  // Redis's LRU clock has 24 bits of seconds
  Section section(out, "Server");
  section.field("redis_version", kRedisVersion)
      .field("redis_git_sha1", "00000000")
      .field("redis_git_dirty", 0);
  section.field("redis_build_id", "isthmus-" ISTHMUS_VERSION).field("redis_mode", "standalone");
  section.field("isthmus_version", ISTHMUS_VERSION).field("os", operating_system()).field("arch_bits", 64);
  section.field("monotonic_clock", "POSIX clock_gettime").field("multiplexing_api", "epoll");
  section.field("gcc_version", std::to_string(__GNUC__) + "." + std::to_string(__GNUC_MINOR__) + "." +
                                   std::to_string(__GNUC_PATCHLEVEL__));
  section.field("process_id", getpid()).field("process_supervised", "no").field("run_id", services.run_id);
  section.field("tcp_port", services.port).field("server_time_usec", context.now_ms * 1000);
  section.field("uptime_in_seconds", uptime_s).field("uptime_in_days", uptime_s / kSecondsOfDay);
  section.field("hz", 10).field("configured_hz", 10).field("lru_clock", (context.now_ms / 1000) & kLruMask);
  section.field("executable", executable_path()).field("config_file", services.config.config_file);
  section.field("io_threads_active", services.stats.threads() > 1 ? 1 : 0);
}

void clients_section(const Context& context, std::string& out) {
  std::uint64_t largest_input = 0, largest_output = 0, connected = 0;
  context.services.clients.for_each([&](const Client& client) {
    ++connected;
    largest_input = std::max(largest_input, client.input_bytes.load(std::memory_order_relaxed));
    largest_output = std::max(largest_output, client.output_bytes.load(std::memory_order_relaxed));
  });
  Section section(out, "Clients");
  section.field("connected_clients", connected).field("cluster_connections", 0);
  section.field("maxclients", context.services.settings.maxclients.load());
  section.field("client_recent_max_input_buffer", largest_input);
  section.field("client_recent_max_output_buffer", largest_output);
  section.zeros({"blocked_clients", "tracking_clients", "clients_in_timeout_table"});
}

std::uint64_t all_connections_bytes(Services& services) {
  std::uint64_t bytes = 0;
  services.clients.for_each([&](const Client& client) { bytes += connection_bytes(client); });
  return bytes;
}

void difference(Section& section, std::string_view name, std::uint64_t a, std::uint64_t b) {
  section.field(std::string(name) + "_ratio", ratio(a, b), 2);
  section.field(std::string(name) + "_bytes", static_cast<std::int64_t>(a) - static_cast<std::int64_t>(b));
}

// Fragmentation is told against what the allocator has handed out, where it can say that: used_memory leaves
// out what does not grow with keys and connections.
void allocator_fields(std::uint64_t resident, std::uint64_t used, Section& section) {
  const AllocatorBytes allocator = allocator_bytes();
  section.field("allocator_allocated", allocator.allocated).field("allocator_active", allocator.active);
  section.field("allocator_resident", allocator.resident);
  difference(section, "allocator_frag", allocator.active, allocator.allocated);
  difference(section, "allocator_rss", allocator.resident, allocator.active);
  difference(section, "rss_overhead", resident, allocator.resident);
  difference(section, "mem_fragmentation", resident, std::max(used, allocator.allocated));
}

void memory_section(const Context& context, std::string& out) {
  Services& services = context.services;
  const std::uint64_t used = used_memory_bytes(services), resident = resident_bytes();
  const std::uint64_t dataset = services.keyspace.used_bytes(), connections = all_connections_bytes(services);
  const std::uint64_t peak = services.stats.peak_memory_bytes.load(),
                      limit = services.settings.maxmemory_bytes.load();
  Section section(out, "Memory");
  section.bytes("used_memory", used).bytes("used_memory_rss", resident).bytes("used_memory_peak", peak);
  section.field("used_memory_peak_perc", percentage(used, peak));
  section.field("used_memory_overhead", used - std::min(used, dataset)).field("used_memory_startup", 0);
  section.field("used_memory_dataset", dataset).field("used_memory_dataset_perc", percentage(dataset, used));
  section.bytes("total_system_memory", system_memory_bytes());
  section.bytes("used_memory_lua", 0).bytes("used_memory_scripts", 0);
  section.zeros({"used_memory_vm_eval", "used_memory_scripts_eval", "number_of_cached_scripts",
                 "number_of_functions", "number_of_libraries", "used_memory_vm_functions"});
  section.bytes("maxmemory", limit).field("maxmemory_policy", "noeviction");
  allocator_fields(resident, used, section);
  section.zeros({"mem_not_counted_for_evict", "mem_replication_backlog", "mem_total_replication_buffers",
                 "mem_clients_slaves"});
  section.field("mem_clients_normal", connections).field("mem_cluster_links", 0);
  section.field("mem_aof_buffer", services.journal.backlog_bytes()).field("mem_allocator", allocator_name());
  section.zeros({"active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"});
}

// Redis's words for our log: every acknowledged write is in it, so nothing is ever left to save, and what
// Redis calls AOF is the log of a durable backend.
void persistence_section(const Context& context, std::string& out) {
  const Services& services = context.services;
  const Journal& journal = services.journal;
  const std::string_view status = journal.available() ? "ok" : "err";
  const std::int64_t checkpoint_ms = journal.stats().last_checkpoint_ms.load();
  Section section(out, "Persistence");
  section.zeros({"loading", "async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"});
  section.field("current_fork_perc", 0.0, 2);
  section.zeros({"current_save_keys_processed", "current_save_keys_total", "rdb_changes_since_last_save",
                 "rdb_bgsave_in_progress"});
  section.field("rdb_last_save_time", (checkpoint_ms == 0 ? services.started_ms : checkpoint_ms) / 1000);
  section.field("rdb_last_bgsave_status", status).field("rdb_last_bgsave_time_sec", -1);
  section.field("rdb_current_bgsave_time_sec", -1).field("rdb_saves", journal.stats().checkpoints.load());
  section.zeros({"rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"});
  section.field("aof_enabled", journal.durable() ? 1 : 0);
  section.zeros({"aof_rewrite_in_progress", "aof_rewrite_scheduled"});
  section.field("aof_last_rewrite_time_sec", -1).field("aof_current_rewrite_time_sec", -1);
  section.field("aof_last_bgrewrite_status", status)
      .zeros({"aof_rewrites", "aof_rewrites_consecutive_failures"});
  section.field("aof_last_write_status", status).field("aof_last_cow_size", 0);
  section.zeros({"module_fork_in_progress", "module_fork_last_cow_size"});
  if (!journal.durable()) return;
  const std::uint64_t disk_bytes = services.log.disk_bytes();
  section.field("aof_current_size", disk_bytes).field("aof_base_size", disk_bytes);
  section.field("aof_pending_rewrite", 0).field("aof_buffer_length", journal.backlog_bytes());
  section.zeros({"aof_pending_bio_fsync", "aof_delayed_fsync"});
}

void network_fields(const Stats& stats, Section& section) {
  section.field("total_net_input_bytes",
                stats.sum([](const ThreadStats& t) -> auto& { return t.input_bytes; }));
  section.field("total_net_output_bytes",
                stats.sum([](const ThreadStats& t) -> auto& { return t.output_bytes; }));
  section.zeros({"total_net_repl_input_bytes", "total_net_repl_output_bytes"});
  section.field("instantaneous_input_kbps", stats.input_kbps(), 2);
  section.field("instantaneous_output_kbps", stats.output_kbps(), 2);
  section.field("instantaneous_input_repl_kbps", 0.0, 2).field("instantaneous_output_repl_kbps", 0.0, 2);
}

void stats_section(const Context& context, std::string& out) {
  const Stats& stats = context.services.stats;
  const PubSub& pubsub = context.services.pubsub;
  const std::uint64_t reads = stats.sum([](const ThreadStats& t) -> auto& { return t.read_calls; });
  const std::uint64_t writes = stats.sum([](const ThreadStats& t) -> auto& { return t.write_calls; });
  const bool threaded = stats.threads() > 1;
  Section section(out, "Stats");
  section.field("total_connections_received", stats.connections_received.load());
  section.field("total_commands_processed",
                stats.sum([](const ThreadStats& t) -> auto& { return t.commands_processed; }));
  section.field("instantaneous_ops_per_sec", stats.ops_per_second());
  network_fields(stats, section);
  section.field("rejected_connections", stats.rejected_connections.load());
  section.zeros({"sync_full", "sync_partial_ok", "sync_partial_err"});
  section.field("expired_keys", stats.expired_keys.load()).field("expired_stale_perc", 0.0, 2);
  section.zeros({"expired_time_cap_reached_count", "expire_cycle_cpu_milliseconds", "evicted_keys",
                 "evicted_clients", "total_eviction_exceeded_time", "current_eviction_exceeded_time"});
  section.field("keyspace_hits", stats.sum([](const ThreadStats& t) -> auto& { return t.keyspace_hits; }));
  section.field("keyspace_misses",
                stats.sum([](const ThreadStats& t) -> auto& { return t.keyspace_misses; }));
  section.field("pubsub_channels", pubsub.names(ChannelKind::channel))
      .field("pubsub_patterns", pubsub.patterns());
  section.field("pubsubshard_channels", pubsub.names(ChannelKind::shard));
  section.zeros({"latest_fork_usec", "total_forks", "migrate_cached_sockets", "slave_expires_tracked_keys",
                 "active_defrag_hits", "active_defrag_misses", "active_defrag_key_hits",
                 "active_defrag_key_misses", "total_active_defrag_time", "current_active_defrag_time",
                 "tracking_total_keys", "tracking_total_items", "tracking_total_prefixes",
                 "unexpected_error_replies"});
  section.field("total_error_replies", stats.error_replies.load()).field("dump_payload_sanitizations", 0);
  section.field("total_reads_processed", reads).field("total_writes_processed", writes);
  section.field("io_threaded_reads_processed", threaded ? reads : 0);
  section.field("io_threaded_writes_processed", threaded ? writes : 0);
  section.zeros({"reply_buffer_shrinks", "reply_buffer_expands"});
  section.field("acl_access_denied_auth", stats.auth_failures.load());
  section.field("client_query_buffer_limit_disconnections", stats.query_buffer_disconnections.load());
  section.field("client_output_buffer_limit_disconnections", stats.output_buffer_disconnections.load());
}

void replication_section(const Context& context, std::string& out) {
  Section section(out, "Replication");
  section.field("role", "master").field("connected_slaves", 0).field("master_failover_state", "no-failover");
  section.field("master_replid", context.services.run_id).field("master_replid2", std::string(40, '0'));
  section.field("master_repl_offset", 0).field("second_repl_offset", -1);
  section.zeros(
      {"repl_backlog_active", "repl_backlog_size", "repl_backlog_first_byte_offset", "repl_backlog_histlen"});
}

double seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

void cpu_section(const Context& /*context*/, std::string& out) {
  constexpr int kDigits = 6;
  rusage process{}, children{};
  getrusage(RUSAGE_SELF, &process);
  getrusage(RUSAGE_CHILDREN, &children);
  Section section(out, "CPU");
  section.field("used_cpu_sys", seconds(process.ru_stime), kDigits);
  section.field("used_cpu_user", seconds(process.ru_utime), kDigits);
  section.field("used_cpu_sys_children", seconds(children.ru_stime), kDigits);
  section.field("used_cpu_user_children", seconds(children.ru_utime), kDigits);
}

void modules_section(const Context& /*context*/, std::string& out) { Section(out, "Modules"); }

void commandstats_section(const Context& context, std::string& out) {
  Section section(out, "Commandstats");
  const Stats& stats = context.services.stats;
  for (std::size_t i = 0; i < command_count(); ++i) {
    const std::uint64_t calls = stats.sum([&](const ThreadStats& t) -> auto& { return t.commands[i].calls; });
    const std::uint64_t rejected =
        stats.sum([&](const ThreadStats& t) -> auto& { return t.commands[i].rejected; });
    const std::uint64_t failed =
        stats.sum([&](const ThreadStats& t) -> auto& { return t.commands[i].failed; });
    if (calls + rejected + failed == 0) continue;
    const std::uint64_t us =
        stats.sum([&](const ThreadStats& t) -> auto& { return t.commands[i].nanoseconds; }) / 1000;
    std::array<char, 160> text;
    std::snprintf(text.data(), text.size(),
                  "calls=%ju,usec=%ju,usec_per_call=%.2f,rejected_calls=%ju,failed_calls=%ju",
                  std::uintmax_t{calls}, std::uintmax_t{us}, ratio(us, calls), std::uintmax_t{rejected},
                  std::uintmax_t{failed});
    section.field("cmdstat_" + std::string(command_at(i).name), text.data());
  }
}

void errorstats_section(const Context& context, std::string& out) {
  Section section(out, "Errorstats");
  for (const auto& [word, count] : context.services.stats.errors()) {
    section.field("errorstat_" + word, "count=" + std::to_string(count));
  }
}

// Without percentiles, which nobody gathers here; the title stays, so that who asks for it gets an answer.
void latencystats_section(const Context& /*context*/, std::string& out) { Section(out, "Latencystats"); }

void cluster_section(const Context& /*context*/, std::string& out) {
  Section(out, "Cluster").field("cluster_enabled", 0);
}

void keyspace_section(const Context& context, std::string& out) {
  Section section(out, "Keyspace");
  const Keyspace& keyspace = context.services.keyspace;
  for (std::size_t i = 0; i < kDatabaseCount; ++i) {
    const auto db = static_cast<std::uint8_t>(i);
    const std::uint64_t keys = keyspace.size(db);
    if (keys == 0) continue;
    section.field("db" + std::to_string(i),
                  "keys=" + std::to_string(keys) +
                      ",expires=" + std::to_string(keyspace.keys_with_deadline(db)) +
                      ",avg_ttl=" + std::to_string(keyspace.average_ttl(db, context.now_ms)));
  }
}

// The site of several servers on one database.
void site_section(const Context& context, std::string& out) {
  const Site* site = context.services.site;
  if (site == nullptr) return;
  Section section(out, "Site");
  const backend::LeaseRow lease = site->lease();
  const backend::UpkeepReport report = site->report();
  const Site::Stats& stats = site->stats();
  section.field("site_role", role_name(site->role())).field("site_server_id", site->server());
  section.field("site_address", site->address()).field("site_writer_address", lease.address);
  section.field("site_lease", lease.lease).field("site_servers", report.servers.size());
  for (std::size_t i = 0; i < report.servers.size(); ++i) {
    const backend::ServerRow& server = report.servers[i];
    section.field("site_server" + std::to_string(i),
                  "id=" + std::to_string(server.id) + ",address=" + server.address +
                      ",version=" + server.version + ",writer=" + (server.writer ? "1" : "0") +
                      ",seen_ms_ago=" + std::to_string(server.seen_ms_ago));
  }
  section.field("feed_up", site->feed_healthy() ? 1 : 0).field("feed_position", site->feed_position());
  section.field("feed_rows", stats.feed_rows.load()).field("feed_restarts", stats.feed_restarts.load());
  section.field("state_rebuilds", stats.rebuilds.load()).field("repeated_rows", stats.repeated_rows.load());
  section.field("stale_messages", stats.stale_messages.load())
      .field("dropped_messages", stats.dropped_messages.load());
  section.field("leases_taken", stats.leases_taken.load()).field("leases_lost", stats.leases_lost.load());
  section.field("seed_rows", stats.seed_rows.load());
  section.field("forwarded_commands", stats.forwarded_commands.load())
      .field("forwarded_commands_served", stats.served_commands.load());
  section.field("forward_retries", stats.forward_retries.load()).field("inbox_rows", stats.inbox_rows.load());
  section.field("database_clock_offset_ms", report.clock_offset_ms)
      .field("slot_wal_bytes", report.slot_bytes);
  section.field("log_default_partition_rows", report.default_partition_rows);
}

// The sites to which this one is linked.
void sites_section(const Context& context, std::string& out) {
  if (context.services.site == nullptr || !context.services.site->linked()) return;
  Section section(out, "Sites");
  for (const auto& [name, value] : sites_facts(context.services, context.now_ms)) section.field(name, value);
  for (const backend::PeerRow& peer : context.services.site->peers()) {
    std::string text;
    for (const auto& [name, value] : peer_facts(peer)) {
      if (!text.empty()) text.push_back(',');
      text.append(name).append(1, '=').append(value);
    }
    std::replace(text.begin(), text.end(), '\n', ' ');
    section.field("peer_" + peer.name, text);
  }
}

// What is ours and has no name in Redis.
void isthmus_section(const Context& context, std::string& out) {
  const Services& services = context.services;
  const Journal& journal = services.journal;
  Section section(out, "Isthmus");
  section.field("backend", services.log.description()).field("backend_durable", journal.durable() ? 1 : 0);
  section.field("backend_available", journal.available() ? 1 : 0);
  section.field("backend_unavailable_reason", journal.unavailable_reason());
  section.field("backend_disk_bytes", services.log.disk_bytes()).field("site_id", services.log.site());
  section.field("log_appended_seq", journal.appended()).field("log_committed_seq", journal.committed());
  section.field("log_backlog_bytes", journal.backlog_bytes())
      .field("log_commits", journal.stats().commits.load());
  section.field("log_rows", journal.stats().rows.load())
      .field("log_failures", journal.stats().failures.load());
  section.field("commit_timeouts", services.stats.commit_timeouts.load());
  section.field("checkpoints", journal.stats().checkpoints.load());
  section.field("last_checkpoint_time", journal.stats().last_checkpoint_ms.load() / 1000);
  section.field("dirty_entries", services.checkpointer == nullptr ? 0 : services.checkpointer->dirty());
  section.field("io_threads", services.config.threads);
  section.field("published_messages", services.stats.published_messages.load());
  section.field("delivered_messages", services.stats.delivered_messages.load());
  section.field("closed_slow_subscribers", services.stats.closed_slow_subscribers.load());
  section.field("moved_connections", services.stats.moved_connections.load());
}

// Only where TLS is served.
void tls_section(const Context& context, std::string& out) {
  const Services& services = context.services;
  if (services.tls_port == 0) return;
  constexpr std::int64_t kSecondsOfDay = 86'400;
  const TlsStats& stats = services.tls->stats();
  const std::int64_t left_s = services.tls->not_after_s() - context.now_ms / 1000;
  Section section(out, "TLS");
  section.field("tls_port", services.tls_port)
      .field("tls_certificate_not_after", services.tls->not_after_s());
  section.field("tls_certificate_days_left", left_s / kSecondsOfDay);
  section.field("tls_connected_clients", stats.connections.load());
  section.field("tls_handshakes", stats.handshakes.load());
  section.field("tls_failed_handshakes", stats.failed_handshakes.load());
  section.field("tls_reloads", stats.reloads.load()).field("tls_failed_reloads", stats.failed_reloads.load());
  section.field("tls_reload_error", services.tls->reload_error());
}

struct SectionEntry {
  std::string_view name;
  bool in_default;
  bool in_all;
  void (*write)(const Context&, std::string&);
};

// In Redis's order, ours last.
constexpr std::array kSections = {
    SectionEntry{"server", true, true, server_section},
    SectionEntry{"clients", true, true, clients_section},
    SectionEntry{"memory", true, true, memory_section},
    SectionEntry{"persistence", true, true, persistence_section},
    SectionEntry{"stats", true, true, stats_section},
    SectionEntry{"replication", true, true, replication_section},
    SectionEntry{"cpu", true, true, cpu_section},
    SectionEntry{"modules", true, false, modules_section},
    SectionEntry{"commandstats", false, true, commandstats_section},
    SectionEntry{"errorstats", true, true, errorstats_section},
    SectionEntry{"latencystats", false, true, latencystats_section},
    SectionEntry{"cluster", true, true, cluster_section},
    SectionEntry{"keyspace", true, true, keyspace_section},
    SectionEntry{"isthmus", true, true, isthmus_section},
    SectionEntry{"tls", true, true, tls_section},
    SectionEntry{"site", true, true, site_section},
    SectionEntry{"sites", true, true, sites_section},
};

bool asked_for(const SectionEntry& entry, std::span<const std::string_view> sections) {
  if (sections.empty()) return entry.in_default;
  return std::any_of(sections.begin(), sections.end(), [&](std::string_view name) {
    return name == entry.name || (name == "default" && entry.in_default) || (name == "all" && entry.in_all) ||
           name == "everything";
  });
}

}  // namespace

std::uint64_t connection_bytes(const Client& client) {
  // The session around a Client, its socket's state and its first buffers: an estimate, as an allocator would
  // count them.
  constexpr std::uint64_t kSessionBytes = 4096;
  // A message that waits is shared with its other subscribers: here only its place in the queue counts.
  constexpr std::uint64_t kQueuedMessageBytes = 64;
  return kSessionBytes + client.input_bytes.load(std::memory_order_relaxed) +
         client.reply_bytes.load(std::memory_order_relaxed) +
         client.queued_messages.load(std::memory_order_relaxed) * kQueuedMessageBytes;
}

std::uint64_t used_memory_bytes(Services& services) {
  const std::uint64_t used =
      services.keyspace.used_bytes() + services.journal.backlog_bytes() + all_connections_bytes(services);
  std::uint64_t peak = services.stats.peak_memory_bytes.load();
  while (peak < used && !services.stats.peak_memory_bytes.compare_exchange_weak(peak, used)) {
  }
  return used;
}

std::uint64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  std::uint64_t total_pages = 0, resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) return 0;
  return resident_pages * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
}

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array<char, 5> kUnits = {'K', 'M', 'G', 'T', 'P'};
  if (bytes < 1024) return std::to_string(bytes) + "B";
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> text;
  std::snprintf(text.data(), text.size(), "%.2f%c", value, kUnits[unit]);
  return text.data();
}

std::string info_text(Services& services, std::span<const std::string_view> sections, std::int64_t now_ms) {
  const Context context{services, now_ms};
  std::string out;
  for (const SectionEntry& entry : kSections) {
    if (asked_for(entry, sections)) entry.write(context, out);
  }
  return out;
}

}  // namespace isthmus
