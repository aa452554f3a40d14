# Private PostgreSQL clusters for `./run postgres` and `./run two-sites`: made, started and stopped by functions. To be
# sourced by bash.
# shellcheck shell=bash
#
# Each listens on a Unix socket only, in a folder that nobody else may enter, and knows people by their operating system's
# user (peer authentication). So there is no password to keep, and no port that another user of the machine could reach.
# Clusters reach each other in the same way.
#
# postgres_prepare begins with a cluster and sets what the other functions need, up to the next postgres_prepare:
#   PG_HOME        the folder of it all: cluster/ (the data), cluster/log/, socket/
#   PG_USER        the operating system's user that runs the database server
#   PG_SOCKET      the folder of the Unix socket
# postgres_start adds to these, by which postgres_stop finds all that were started:
#   PG_PROCESSES   the database servers' processes
#   PG_STARTED     their PG_HOMEs, in the same order

PG_PROGRAMS=/usr/lib/postgresql/15/bin
# Unix socket paths end at 107 bytes (unix(7)), of which PostgreSQL's own name takes 20.
PG_SOCKET_FOLDER_MAX_BYTES=87
PG_START_SECONDS=60
PG_PROCESSES=()
PG_STARTED=()
PG_TEMPORARY_SOCKETS=()

# as_postgres COMMAND...: as the user who runs the database server, which refuses to be root.
as_postgres() {
  "${PG_PREFIX[@]}" "$@"
}

# postgres_prepare FOLDER: chooses FOLDER/postgres, makes the folder and, the first time, the cluster in it.
postgres_prepare() {
  PG_USER=$(id -un)
  # From a folder that this user may enter, too.
  PG_PREFIX=(env -C /)
  if [ "$(id -u)" -eq 0 ]; then
    PG_USER=postgres
    PG_PREFIX+=(setpriv --reuid postgres --regid postgres --init-groups)
  fi
  mkdir -p "$1"
  PG_HOME=$(cd "$1" && pwd -P)/postgres
  postgres_find_home || return 1
  postgres_choose_socket
  [ -e "$PG_HOME/cluster/PG_VERSION" ] || postgres_make_cluster || return 1
  postgres_write_access
}

# Makes PG_HOME a folder of PG_USER. If that user cannot reach it (a checkout in root's home), it becomes a link to a folder
# that he can reach.
postgres_find_home() {
  if [ -L "$PG_HOME" ] && [ ! -e "$PG_HOME" ]; then rm -f "$PG_HOME"; fi
  if [ ! -e "$PG_HOME" ]; then
    if as_postgres test -x "$(dirname "$PG_HOME")"; then
      mkdir "$PG_HOME"
    else
      local elsewhere
      elsewhere=$(mktemp -d /var/tmp/isthmus-postgres.XXXXXX)
      ln -s "$elsewhere" "$PG_HOME"
      echo "The user postgres, who runs PostgreSQL, cannot enter $(dirname "$PG_HOME"): the data is in $elsewhere" >&2
    fi
    [ "$(id -un)" = "$PG_USER" ] || chown "$PG_USER:" "$PG_HOME/"
    chmod 700 "$PG_HOME/"
  fi
  PG_HOME=$(cd "$PG_HOME" && pwd -P) || return 1
  if ! as_postgres test -w "$PG_HOME"; then
    echo "$PG_HOME belongs to $(stat -c %U "$PG_HOME"), and PostgreSQL would run as $PG_USER who cannot write there." >&2
    echo "Run this as the user who ran it first, or name another folder: ISTHMUS_DATA=/some/folder ./run …" >&2
    return 1
  fi
}

postgres_choose_socket() {
  PG_SOCKET=$PG_HOME/socket
  if [ "$(printf %s "$PG_SOCKET" | wc -c)" -gt "$PG_SOCKET_FOLDER_MAX_BYTES" ]; then
    PG_SOCKET=$(mktemp -d /tmp/isthmus-postgres.XXXXXX)
    PG_TEMPORARY_SOCKETS+=("$PG_SOCKET")
    [ "$(id -un)" = "$PG_USER" ] || chown "$PG_USER:" "$PG_SOCKET"
  else
    as_postgres mkdir -p -m 700 "$PG_SOCKET"
  fi
}

postgres_make_cluster() {
  local log
  echo "Making a PostgreSQL cluster in $PG_HOME/cluster" >&2
  # Under another name first, so that a cluster that is there is a whole one.
  as_postgres rm -rf "$PG_HOME/cluster.new"
  log=$(as_postgres "$PG_PROGRAMS/initdb" -D "$PG_HOME/cluster.new" -U postgres --auth=peer --encoding=UTF8 \
    --locale=C.UTF-8 --no-instructions 2>&1) || { echo "$log" >&2; return 1; }
  as_postgres mv "$PG_HOME/cluster.new" "$PG_HOME/cluster"
}

# Who may connect: the user of the database server and the one who runs this, as `isthmus` and as `postgres`.
postgres_write_access() {
  local user
  printf 'local all all peer map=isthmus\n' | as_postgres tee "$PG_HOME/cluster/pg_hba.conf" >/dev/null
  for user in "$PG_USER" "$(id -un)"; do
    printf 'isthmus "%s" isthmus\nisthmus "%s" postgres\n' "$user" "$user"
  done | sort -u | as_postgres tee "$PG_HOME/cluster/pg_ident.conf" >/dev/null
}

# postgres_start [NAME=VALUE...]: starts the database server with these settings beside ours and waits until it takes
# connections. It ends with this shell, however that ends.
postgres_start() {
  local tries output=$PG_HOME/cluster/start.log process
  if as_postgres "$PG_PROGRAMS/pg_ctl" status -D "$PG_HOME/cluster" >/dev/null; then
    echo "PostgreSQL runs on $PG_HOME/cluster already, as process $(head -n 1 "$PG_HOME/cluster/postmaster.pid"):" >&2
    echo "is there another ./run that uses this folder?" >&2
    return 1
  fi
  local settings=(
    -c listen_addresses= -c unix_socket_directories="$PG_SOCKET" -c unix_socket_permissions=0700
    -c wal_level=logical -c max_wal_senders=20 -c max_replication_slots=20
    # A slot that nobody reads any more must not fill the disk.
    -c max_slot_wal_keep_size=2GB
    # A file for each day of the week, overwritten after a week.
    -c logging_collector=on -c log_directory=log -c log_filename=postgresql-%a.log -c log_truncate_on_rotation=on
    "${@/#/--}"
  )
  # In a session of its own, or Ctrl-C would stop it before its clients. The kernel stops it when this shell is gone.
  "${PG_PREFIX[@]}" setsid setpriv --pdeathsig INT "$PG_PROGRAMS/postgres" -D "$PG_HOME/cluster" "${settings[@]}" \
    </dev/null >"$output" 2>&1 &
  process=$!
  PG_PROCESSES+=("$process")
  PG_STARTED+=("$PG_HOME")
  for ((tries = 0; tries < PG_START_SECONDS * 10; ++tries)); do
    if "$PG_PROGRAMS/pg_isready" -q -h "$PG_SOCKET" -U postgres; then return 0; fi
    if ! kill -0 "$process" 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo "PostgreSQL does not start; see $PG_HOME/cluster/log" >&2
  cat "$output" >&2
  return 1
}

# Stops all database servers that were started, which ends their clients' sessions.
postgres_stop() {
  local process
  for process in "${PG_PROCESSES[@]}"; do kill -INT "$process" 2>/dev/null || true; done
  for process in "${PG_PROCESSES[@]}"; do wait "$process" || true; done
  PG_PROCESSES=()
  if [ ${#PG_TEMPORARY_SOCKETS[@]} -gt 0 ]; then rm -rf "${PG_TEMPORARY_SOCKETS[@]}"; fi
}

# Makes the role and the database `isthmus` if they are missing. The role may do what a server needs and no more.
postgres_make_database() {
  local psql=(as_postgres "$PG_PROGRAMS/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$PG_SOCKET" -U postgres)
  [ -n "$("${psql[@]}" -c "SELECT 1 FROM pg_roles WHERE rolname = 'isthmus'" postgres)" ] ||
    "${psql[@]}" -c 'CREATE ROLE isthmus LOGIN REPLICATION' postgres || return 1
  [ -n "$("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'isthmus'" postgres)" ] ||
    "${psql[@]}" -c 'CREATE DATABASE isthmus OWNER isthmus' postgres
}

# Lets the role link sites, for which PostgreSQL 15 wants a superuser: only he may create subscriptions.
postgres_allow_links() {
  as_postgres "$PG_PROGRAMS/psql" -X -q -v ON_ERROR_STOP=1 -h "$PG_SOCKET" -U postgres -c 'ALTER ROLE isthmus SUPERUSER' postgres
}

# The database as a connection URI, for --backend.
postgres_url() {
  printf 'postgresql://isthmus@/isthmus?host=%s\n' "$(percent_encoded "$PG_SOCKET")"
}

percent_encoded() {
  local LC_ALL=C text=$1 i character
  for ((i = 0; i < ${#text}; ++i)); do
    character=${text:i:1}
    case "$character" in
      [a-zA-Z0-9/._~-]) printf %s "$character" ;;
      *) printf '%%%02X' "'$character" ;;
    esac
  done
}
