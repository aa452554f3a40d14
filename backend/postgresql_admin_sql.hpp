// What an administrator installs where Isthmus' role may not do itself what links need.
#pragma once

#include <string_view>

namespace isthmus::backend {

/// The SQL function by which a role that is no superuser makes subscriptions before PostgreSQL 16. For psql,
/// run by a superuser in the site's database, with the role's name in the variable `role`.
std::string_view postgresql_admin_sql();

/// The signature of that function, as to_regprocedure takes it.
inline constexpr std::string_view kCreateSubscriptionFunction =
    "isthmus_admin.create_subscription(text, text, text)";

}  // namespace isthmus::backend
