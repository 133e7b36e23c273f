#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs node_modules as package-lock.json says, and what the pinned Node (first argument) needs to start.
# Runs before any Node of ours exists, hence plain sh. Instant when the lock file has not changed.
set -eu

node=$1
stamp=node_modules/.setup-stamp
fail() { echo "setup: $*" >&2; exit 1; }

hash=$(sha256sum package-lock.json .npmrc | sha256sum | cut -c1-64)
if ! [ -f "$stamp" ] || [ "$(cat "$stamp")" != "$hash" ]; then
  # npm has just installed this very lock file: nothing to repeat.
  if ! [ node_modules/.package-lock.json -nt package-lock.json ]; then
    command -v npm >/dev/null || fail "npm is not installed; Debian and Ubuntu: apt-get install npm"
    echo "setup: npm ci ($(npm --version), node $(node --version))"
    started=$(date +%s)
    npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
    echo "setup: installed in $(($(date +%s) - started)) s"
  fi
  echo "$hash" >"$stamp"
fi

[ -x "$node" ] || fail "$node is missing: npm left out the optional dependency for this machine ($(uname -sm)); Linux on x64 or arm64 is needed"
if ! version=$("$node" --version 2>&1); then
  # Official Node >= 25 links libatomic, which small Debian installations lack.
  case $version in *libatomic*) ;; *) fail "$node does not start: $version" ;; esac
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing libatomic1, which $node needs"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libatomic1; } >/dev/null
  else
    fail "$node needs libatomic.so.1; Debian and Ubuntu: apt-get install libatomic1, Fedora: dnf install libatomic"
  fi
  "$node" --version >/dev/null || fail "$node does not start"
fi
