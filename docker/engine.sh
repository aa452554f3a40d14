# A Docker engine for docker/test where none runs: private, with images that stand in for the official ones. To be sourced by bash
# after cmake/packages.sh.
# shellcheck shell=bash
#
# engine_start FOLDER starts it and sets DOCKER_HOST and DOCKER_CONFIG; engine_stop stops it and puts the machine's packet filter and
# network back as they were. What it has is in FOLDER: images are there the next time.

ENGINE_START_SECONDS=60
ENGINE_STOP_SECONDS=30
# Debian 12 has neither Compose 2 nor buildx; the next release's programs run here.
ENGINE_PLUGINS_FROM=trixie
ENGINE_PROCESS=
# As iptables-restore(8) reads them.
declare -A EMPTY_TABLES=(
  [filter]=$'*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\nCOMMIT'
  [nat]=$'*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\nCOMMIT'
)

engine_start() {
  local tries table
  ENGINE_FOLDER=$1
  install_packages "${DOCKER_ENGINE_PACKAGES[@]}" || return 1
  mkdir -p "$ENGINE_FOLDER"
  # What dockerd changes on the machine. A table that is not there yet is one without rules.
  iptables-save >"$ENGINE_FOLDER/packet-filter"
  for table in filter nat; do
    grep -qx "[*]$table" "$ENGINE_FOLDER/packet-filter" || echo "${EMPTY_TABLES[$table]}" >>"$ENGINE_FOLDER/packet-filter"
  done
  sysctl -n net.ipv4.ip_forward >"$ENGINE_FOLDER/forwards"
  ip -o link show type bridge | sed 's/^[0-9]*: \([^:@]*\).*/\1/' >"$ENGINE_FOLDER/bridges"
  export DOCKER_HOST=unix://$ENGINE_FOLDER/socket DOCKER_CONFIG=$ENGINE_FOLDER/config
  setsid dockerd --data-root "$ENGINE_FOLDER/data" --exec-root "$ENGINE_FOLDER/exec" --pidfile "$ENGINE_FOLDER/pid" \
    --host "$DOCKER_HOST" --storage-driver overlay2 </dev/null >"$ENGINE_FOLDER/log" 2>&1 &
  ENGINE_PROCESS=$!
  for ((tries = 0; tries < ENGINE_START_SECONDS * 10; ++tries)); do
    if docker info >/dev/null 2>&1; then return 0; fi
    kill -0 "$ENGINE_PROCESS" 2>/dev/null || break
    sleep 0.1
  done
  echo "The Docker engine does not start:" >&2
  tail -n 20 "$ENGINE_FOLDER/log" >&2
  return 1
}

engine_stop() {
  local tries bridge
  [ -n "$ENGINE_PROCESS" ] || return 0
  kill -TERM "$ENGINE_PROCESS" 2>/dev/null || true
  for ((tries = 0; tries < ENGINE_STOP_SECONDS * 10; ++tries)); do
    kill -0 "$ENGINE_PROCESS" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$ENGINE_PROCESS" 2>/dev/null || true
  wait "$ENGINE_PROCESS" 2>/dev/null || true
  ENGINE_PROCESS=
  iptables-restore <"$ENGINE_FOLDER/packet-filter"
  sysctl -q -w "net.ipv4.ip_forward=$(cat "$ENGINE_FOLDER/forwards")" || true
  ip -o link show type bridge | sed 's/^[0-9]*: \([^:@]*\).*/\1/' | grep -vxFf "$ENGINE_FOLDER/bridges" | while read -r bridge; do
    ip link delete "$bridge"
  done
}

# The mirror of Debian that this machine uses.
debian_mirror() {
  # apt's own placeholder, not a variable.
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1
}

# engine_plugins: Compose and buildx for the private engine's client.
engine_plugins() {
  local folder=$ENGINE_FOLDER/plugins plugin
  local apt=(apt-get -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$folder/lists" -o "Dir::Cache=$folder/cache" -o APT::Sandbox::User=root)
  if [ ! -e "$folder/ready" ]; then
    rm -rf "$folder"
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/root" "$DOCKER_CONFIG/cli-plugins"
    echo "deb $(debian_mirror) $ENGINE_PLUGINS_FROM main" >"$folder/sources.list"
    if ! (cd "$folder" && "${apt[@]}" -q update && "${apt[@]}" -q download docker-compose docker-buildx) >"$folder/log" 2>&1; then
      cat "$folder/log" >&2
      return 1
    fi
    for plugin in "$folder"/*.deb; do dpkg -x "$plugin" "$folder/root"; done
    ln -sf "$folder/root/usr/libexec/docker/cli-plugins/"* "$DOCKER_CONFIG/cli-plugins/"
    touch "$folder/ready"
  fi
}

# stand_in IMAGE: makes the image from Debian's packages.
stand_in() {
  local folder=$ENGINE_FOLDER/root release=bookworm include=
  local change=(--change 'CMD ["bash"]')
  case "$1" in
    debian:bookworm-slim) ;;
    postgres:17*)
      release=trixie include=--include=openssl,postgresql-17
      change=(--change 'ENTRYPOINT ["stand-in"]' --change 'CMD ["postgres"]' --change 'EXPOSE 5432'
        --change 'ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin PGDATA=/var/lib/postgresql/data'
        --change 'VOLUME /var/lib/postgresql/data')
      ;;
    *)
      echo "There is no stand-in for $1" >&2
      return 1
      ;;
  esac
  rm -rf "$folder"
  # No service starts in a chroot, and the package's own cluster is not wanted: the entry point makes one.
  if ! debootstrap --variant=minbase $include "$release" "$folder" "$(debian_mirror)" >"$ENGINE_FOLDER/debootstrap.log" 2>&1; then
    tail -n 20 "$ENGINE_FOLDER/debootstrap.log" >&2
    return 1
  fi
  if [ -n "$include" ]; then
    install -m 755 "$(dirname "${BASH_SOURCE[0]}")/postgres-stand-in" "$folder/usr/local/bin/stand-in"
    # As in the official image, which files are made over to.
    chroot "$folder" sh -c 'groupmod -g 999 postgres && usermod -u 999 postgres && chown -R postgres:postgres /run/postgresql'
    rm -rf "$folder"/var/lib/postgresql/17
  fi
  tar -C "$folder" --one-file-system --exclude=./proc/* --exclude=./sys/* --exclude=./var/cache/apt/archives/*.deb -c . |
    docker import "${change[@]}" - "$1" >/dev/null || return 1
  rm -rf "$folder"
}
