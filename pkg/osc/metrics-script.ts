// SPDX-License-Identifier: Apache-2.0

/**
 * `spegel_metrics.sh PORT FILE [INTERVAL_SECONDS]`: copies the daemon's metrics to node-exporter's textfile
 * collector. POSIX sh; fetches with what the operating system has: curl, wget or bash.
 */
export const METRICS_SCRIPT: string = String.raw`#!/bin/sh
# spegel_metrics.sh PORT FILE [INTERVAL_SECONDS]
#
# Copies the metrics of spegel on this node to FILE for node-exporter's textfile collector, again and again,
# or once when the interval is 0.
# Only spegel_* and http_* go on: go_* and process_* are node-exporter's own families too, and a family that
# comes twice makes it fail the whole scrape. FILE is replaced by a rename and so is never seen half-written.
set -u
port=$1
file=$2
interval=15
if [ $# -ge 3 ]; then interval=$3; fi
url=http://127.0.0.1:$port/metrics

unset http_proxy HTTP_PROXY all_proxy ALL_PROXY
umask 022
ulimit -f 8192 # a few MiB: whatever answers on that port cannot fill the disk

fetch() {
  if command -v curl >/dev/null 2>&1; then
    curl -sf --max-time 10 "$url"
  elif command -v wget >/dev/null 2>&1; then
    wget -q -t 1 -T 10 -O - "$url"
  else
    bash -c '
      exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
      printf "GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n" >&3
      IFS= read -r -t 10 status <&3 || exit 1
      case $status in "HTTP/1."?" 200 "*) ;; *) exit 1 ;; esac
      end=$(printf "\r")
      while IFS= read -r -t 10 line <&3 && [ "$line" != "$end" ]; do :; done
      timeout 10 cat <&3
    ' fetch "$port" 2>/dev/null
  fi
}

publish() {
  fetch >"$file.raw" || return
  # An answer that was cut could end in half a number; a whole one ends with a line break.
  [ -z "$(tail -c 1 "$file.raw")" ] || return
  grep -E '^(# (HELP|TYPE) )?(spegel|http)_' "$file.raw" >"$file.tmp" || return
  chmod 0644 "$file.tmp" && mv -f "$file.tmp" "$file"
}

mkdir -p "$(dirname "$file")"
while :; do
  publish
  published=$?
  rm -f "$file.raw" "$file.tmp"
  if [ "$interval" -eq 0 ]; then exit $published; fi
  # A daemon that has just been started is not missed for long.
  if [ $published -eq 0 ]; then sleep "$interval"; else sleep 1; fi
done
`;
