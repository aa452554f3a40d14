#!/usr/bin/env bash
# Makes an authority and the certificates of docker/two-sites.compose.yaml, once. The authority's key is thrown away: to have new
# certificates remove the volume, and all get new ones of a new authority.
#
#     certificates.sh FOLDER DAYS NAME:USER:HOST,HOST...     USER is the number of the user who may read the key
set -euo pipefail
folder=$1 days=$2
shift 2
if [ -e "$folder/ca.crt" ]; then exit 0; fi
umask 077
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

request() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes "$@" 2>"$scratch/log" || { cat "$scratch/log" >&2; exit 1; }
}

request -x509 -days "$days" -subj "/CN=Isthmus for a try" -keyout "$scratch/ca.key" -out "$scratch/ca.crt"
for entry in "$@"; do
  IFS=: read -r name user hosts <<<"$entry"
  request -subj "/CN=$name" -keyout "$scratch/$name.key" -out "$scratch/$name.request"
  # And by the names of this machine, where their ports are published.
  openssl x509 -req -in "$scratch/$name.request" -CA "$scratch/ca.crt" -CAkey "$scratch/ca.key" -CAcreateserial -days "$days" \
    -extfile <(echo "subjectAltName = DNS:${hosts//,/,DNS:},DNS:localhost,IP:127.0.0.1") -out "$scratch/$name.crt" 2>/dev/null
  install -o "$user" -g "$user" -m 600 "$scratch/$name.key" "$folder/$name.key"
  install -m 644 "$scratch/$name.crt" "$folder/$name.crt"
done
# Last, as the sign that all is there.
install -m 644 "$scratch/ca.crt" "$folder/ca.crt"
