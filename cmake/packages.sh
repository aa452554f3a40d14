# Debian packages that Isthmus needs, and how ./run and ./test get those that are missing. To be sourced by bash.
# shellcheck shell=bash disable=SC2034

# To build the server. Boost 1.81 by name: Debian 12's default is older and lacks what we use.
BUILD_PACKAGES=(
  cmake g++ ninja-build pkg-config
  libboost1.81-dev libcli11-dev libjemalloc-dev liblzf-dev libpq-dev libspdlog-dev libsqlite3-dev libssl-dev libxxhash-dev
  prometheus-cpp-dev
)

# What the program itself is linked with, for an image that has nothing else; certificates of public authorities are for
# PostgreSQL behind one (sslrootcert).
RUNTIME_PACKAGES=(
  ca-certificates libjemalloc2 liblzf1 libpq5 libprometheus-cpp-core1.0 libspdlog1.10 libsqlite3-0 libssl3 libxxhash0
)

# For ./run postgres: the database server, which brings psql along, and redis-cli for the lines that it prints.
RUN_POSTGRES_PACKAGES=(postgresql-15 redis-tools)

# To test it, on top of those. redis-server is what Isthmus is compared with.
TEST_PACKAGES=(
  clang-format git golang-go golang-gopkg-redis.v5-dev libgmock-dev libgtest-dev libhiredis-dev openssl postgresql-15 procps
  python3 python3-redis redis-server redis-tools shellcheck sqlite3
)

# Only where there is no npm: many machines have a newer Node.js than Debian's, which then need not be installed beside it.
NODE_PACKAGES=(nodejs npm)

# Only for ./test tidy, as clang is large.
TIDY_PACKAGES=(clang-tidy)

# For k8s/test/run, beside Node.js: promtool comes with prometheus. The exporter is needed only with a server.
HELM_TEST_PACKAGES=(prometheus python3)
HELM_SERVER_TEST_PACKAGES=(postgresql-15 prometheus-redis-exporter)

# For docker/test. An engine only where none runs.
DOCKER_TEST_PACKAGES=(python3)
DOCKER_ENGINE_PACKAGES=(debootstrap docker.io iproute2 iptables)

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Runs a command as root, by sudo where that is needed.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    sudo "$@"
  fi
}

# Installs the packages given by name that are missing. Says what to do where it cannot.
install_packages() {
  local missing=() package
  if ! command -v dpkg-query >/dev/null; then
    echo "This is not Debian, so nothing is installed. What is needed here are Debian 12's packages: $*" >&2
    return 0
  fi
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "Installing Debian packages: ${missing[*]}" >&2
  if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
    echo "That needs root. Please run: apt-get install ${missing[*]}" >&2
    return 1
  fi
  apt_install "${missing[@]}"
}

# Debian starts a service as soon as it is installed, and makes a PostgreSQL cluster "main". We want the programs only: services are
# neither started now nor at the next boot, and no cluster is made. What was installed before is left as it is, since it is not
# among the arguments.
apt_install() {
  local install=(apt_get_install "$@") starts=no makes_cluster=no services=() package
  for package in "$@"; do
    case "$package" in
      redis-server | prometheus | prometheus-redis-exporter) starts=yes services+=("$package") ;;
      docker.io) starts=yes services+=(docker containerd) ;;
      postgresql-*) starts=yes makes_cluster=yes ;;
    esac
  done
  if [ "$starts" = yes ]; then install=(without_services "${install[@]}"); fi
  if [ "$makes_cluster" = yes ]; then install=(without_main_cluster "${install[@]}"); fi
  "${install[@]}" || return 1
  for package in "${services[@]}"; do keep_service_off "$package"; done
}

# Tried three times, as a mirror does not always answer. What apt-get says is shown if it fails each time.
apt_get_install() {
  local log attempt attempts=3 pause_seconds=20 status=1
  log=$(mktemp)
  for ((attempt = 1; attempt <= attempts; ++attempt)); do
    status=0
    { apt_get update && apt_get install -y --no-install-recommends "$@"; } >>"$log" 2>&1 || status=$?
    if [ "$status" -eq 0 ] || [ "$attempt" -eq "$attempts" ]; then break; fi
    echo "apt-get failed; again in $pause_seconds s" | tee -a "$log" >&2
    sleep "$pause_seconds"
  done
  if [ "$status" -ne 0 ]; then
    cat "$log" >&2
    echo "apt-get could not install: $*" >&2
  fi
  rm -f "$log"
  return "$status"
}

# Runs a command while Debian's policy layer forbids to start services (see invoke-rc.d(8)), in a subshell so that the
# policy also goes away when somebody interrupts it. A policy that exists is respected.
without_services() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\n# For the length of one installation: start no service.\nexit 101\n' |
      as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  "$@"
)

# Runs a command while Debian's PostgreSQL packages are told to make no cluster of their own (see pg_createcluster(1)), in a
# subshell as above. The setting is a file beside the configuration, which is not touched.
without_main_cluster() (
  folder=/etc/postgresql-common/createcluster.d
  setting=$folder/isthmus.conf
  if [ ! -e "$setting" ]; then
    trap 'as_root rm -f "$setting"; as_root rmdir --ignore-fail-on-non-empty "$folder"' EXIT
    as_root mkdir -p "$folder"
    echo 'create_main_cluster = false' | as_root tee "$setting" >/dev/null
  fi
  "$@"
)

apt_get() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 "$@"
}

keep_service_off() {
  if command -v systemctl >/dev/null && [ -d /run/systemd/system ]; then
    as_root systemctl --quiet disable --now "$1.service" 2>/dev/null || true
  elif command -v update-rc.d >/dev/null; then
    as_root update-rc.d "$1" disable >/dev/null 2>&1 || true
  fi
}
