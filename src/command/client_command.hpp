// How CLIENT LIST shows a connection.
#pragma once

#include <cstdint>
#include <string>

#include "src/command/client.hpp"

namespace isthmus {

/// One line of CLIENT LIST without its newline, with Redis 7.0's fields in their order and 7.2's lib-name and
/// lib-ver behind them (https://redis.io/docs/latest/commands/client-list/). Reads the texts that the
/// registry's lock guards. `now_ms` is by the steady clock.
std::string client_line(const Client& client, std::int64_t now_ms);

}  // namespace isthmus
