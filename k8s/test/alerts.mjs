// What each alert of files/alerts.yaml is for, as numbers: the metrics of a healthy site, at which none fires, and for each
// alert what is different when it fires, and that nothing else does. promtool evaluates this.
import { stringify } from "yaml";

const INTERVALS = 240;  // of 15 s: an hour, longer than any range or `for` of the alerts
const GIB = 2 ** 30;

const site = (metric, more = "", instance = "a") => `${metric}{job="isthmus",instance="${instance}"${more}}`;
const link = (metric) => site(metric, ',peer="tokyo"');
const always = (value) => `${value}x${INTERVALS}`;
const rising = (step) => `0+${step}x${INTERVALS}`;

const HEALTHY = {
  [site("up")]: always(1),
  [site("up", "", "b")]: always(1),
  [site("isthmus_backend_available")]: always(1),
  [site("isthmus_commit_duration_seconds_bucket", ',le="0.005"')]: rising(100),
  [site("isthmus_commit_duration_seconds_bucket", ',le="0.5"')]: rising(100),
  [site("isthmus_commit_duration_seconds_bucket", ',le="+Inf"')]: rising(100),
  [site("isthmus_commit_timeouts_total")]: always(3),
  [site("isthmus_log_backlog_bytes")]: always(1000),
  [site("isthmus_checkpoint_dirty_entries")]: always(10),
  [site("isthmus_checkpoints_total")]: rising(1),
  // The second server is not the writer and writes no checkpoints.
  [site("isthmus_checkpoint_dirty_entries", "", "b")]: always(10),
  [site("isthmus_checkpoints_total", "", "b")]: always(0),
  [site("redis_memory_used_dataset_bytes")]: always(1000),
  // Connections and what waits for its commit are not under the limit.
  [site("redis_memory_used_bytes")]: always(5000),
  [site("redis_memory_max_bytes")]: always(0),
  [site("redis_connected_clients")]: always(10),
  [site("redis_config_maxclients")]: always(10000),
  [site("isthmus_slow_subscribers_closed_total")]: always(2),
  [site("isthmus_tls_certificate_expiry_timestamp_seconds")]: always(30 * 86400),
  [site("isthmus_tls_files_stale")]: always(0),
  [site("isthmus_writer")]: always(1),
  [site("isthmus_writer", "", "b")]: always(0),
  [site("isthmus_writer_reachable")]: always(1),
  [site("isthmus_writer_reachable", "", "b")]: always(1),
  [site("isthmus_leases_taken_total")]: always(1),
  [site("isthmus_feed_up")]: always(1),
  [site("isthmus_feed_slot_bytes")]: always(100000),
  [site("isthmus_log_default_partition_rows")]: always(0),
  [site("isthmus_stale_messages_total")]: always(5),
  [site("isthmus_dropped_messages_total")]: always(5),
  [site("isthmus_database_clock_offset_seconds")]: always(-0.1),
  [link("isthmus_link_up")]: always(1),
  [link("isthmus_link_lag_seconds")]: always(1),
  [link("isthmus_link_slot_bytes")]: always(100000),
  [link("isthmus_link_clock_offset_seconds")]: always(-0.1),
  [site("isthmus_gaps_found_total")]: always(1),
  [site("isthmus_reseeds_total")]: always(1),
  [site("isthmus_stable_age_seconds")]: always(2),
  [site("isthmus_wild_versions_total")]: always(0),
};

// alert: what is different. `also` names alerts that must fire as well.
const BROKEN = {
  IsthmusSiteDown: {
    series: { [site("up")]: always(0), [site("up", "", "b")]: always(0) },
    also: ["IsthmusServerDown"],
  },
  IsthmusServerDown: { series: { [site("up", "", "b")]: always(0) } },
  IsthmusBackendUnavailable: { series: { [site("isthmus_backend_available")]: always(0) } },
  IsthmusCommitsSlow: { series: { [site("isthmus_commit_duration_seconds_bucket", ',le="0.005"')]: rising(90) } },
  IsthmusWritesTimedOut: { series: { [site("isthmus_commit_timeouts_total")]: rising(1) } },
  IsthmusBacklogHigh: { series: { [site("isthmus_log_backlog_bytes")]: always(60 * 2 ** 20) } },
  IsthmusCheckpointStalled: { series: { [site("isthmus_checkpoints_total")]: always(7) } },
  IsthmusMemoryNearLimit: { series: { [site("redis_memory_max_bytes")]: always(1050) } },
  IsthmusConnectionsNearLimit: { series: { [site("redis_connected_clients")]: always(9500) } },
  IsthmusSlowSubscribers: { series: { [site("isthmus_slow_subscribers_closed_total")]: rising(1) } },
  IsthmusCertificateExpires: { series: { [site("isthmus_tls_certificate_expiry_timestamp_seconds")]: always(6 * 86400) } },
  IsthmusCertificateNotTaken: { series: { [site("isthmus_tls_files_stale")]: always(1) } },
  IsthmusNoWriter: {
    series: {
      [site("isthmus_writer")]: always(0),
      [site("isthmus_writer_reachable")]: always(0),
      [site("isthmus_writer_reachable", "", "b")]: always(0),
    },
  },
  IsthmusWriterOutOfReach: { series: { [site("isthmus_writer_reachable", "", "b")]: always(0) } },
  IsthmusSeveralWriters: { series: { [site("isthmus_writer", "", "b")]: always(1) }, also: ["IsthmusCheckpointStalled"] },
  IsthmusWriterFlapping: { series: { [site("isthmus_leases_taken_total")]: rising(1) } },
  IsthmusFeedDown: { series: { [site("isthmus_feed_up")]: always(0) } },
  IsthmusFeedSlotGrows: { series: { [site("isthmus_feed_slot_bytes")]: always(2 * GIB) } },
  IsthmusDefaultPartitionUsed: { series: { [site("isthmus_log_default_partition_rows")]: always(4) } },
  IsthmusMessagesLost: { series: { [site("isthmus_dropped_messages_total")]: rising(2) } },
  IsthmusDatabaseClockOff: { series: { [site("isthmus_database_clock_offset_seconds")]: always(-3) } },
  IsthmusLinkDown: { series: { [link("isthmus_link_up")]: always(0), [link("isthmus_link_lag_seconds")]: rising(15) } },
  IsthmusLinkLags: { series: { [link("isthmus_link_lag_seconds")]: always(40) } },
  IsthmusLinkSlotGrows: { series: { [link("isthmus_link_slot_bytes")]: always(6 * GIB) } },
  IsthmusRowsMissing: { series: { [site("isthmus_gaps_found_total")]: rising(1) } },
  IsthmusStateCopiedAgain: { series: { [site("isthmus_reseeds_total")]: rising(1) } },
  IsthmusDeletionsKeptLong: { series: { [site("isthmus_stable_age_seconds")]: always(100000) } },
  IsthmusWildClock: { series: { [site("isthmus_wild_versions_total")]: rising(1) } },
  IsthmusPeerClockOff: { series: { [link("isthmus_link_clock_offset_seconds")]: always(3) } },
};

export const testedAlerts = Object.keys(BROKEN);

function test(name, series, firing) {
  return {
    name,
    interval: "15s",
    input_series: Object.entries(series).map(([key, values]) => ({ series: key, values })),
    promql_expr_test: [
      {
        expr: 'group by (alertname) (ALERTS{alertstate="firing"})',
        eval_time: "60m",
        exp_samples: firing.map((alert) => ({ labels: `{alertname="${alert}"}`, value: 1 })),
      },
    ],
  };
}

/** The text of a test file for `promtool test rules`, of the rules in the file `rules`. */
export function promtoolTests(rules) {
  const tests = [test("a healthy site", HEALTHY, [])];
  // The database without servers beside it: series of a shared log and of links are not there.
  const embedded = Object.fromEntries(
    Object.entries(HEALTHY).filter(([key]) => !/^isthmus_(writer|leases|feed|link|gaps|reseeds|stable|wild|stale|dropped|database|log_default)/.test(key) && !key.includes('"b"')));
  tests.push(test("a healthy server with SQLite", embedded, []));
  for (const [alert, { series, also = [] }] of Object.entries(BROKEN)) {
    tests.push(test(alert, { ...HEALTHY, ...series }, [alert, ...also]));
  }
  return stringify({ rule_files: [rules], evaluation_interval: "15s", tests });
}
