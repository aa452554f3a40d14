// The metrics page in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/).
#pragma once

#include <cstdint>
#include <string>

#include "src/command/services.hpp"

namespace isthmus {

/// All metrics now. What existing Redis dashboards read has the names that redis_exporter
/// (https://github.com/oliver006/redis_exporter) gives it, our own facts have names that begin `isthmus_`.
std::string metrics_text(Services& services, std::int64_t now_ms);

/// Why this server should get no clients now; empty if it is ready: the backend takes writes or may be
/// written to through another server, the feed is up, and the server is not ending.
std::string not_ready_because(const Services& services);

}  // namespace isthmus
