#!/usr/bin/env bash
# Installs what a step needs: Debian packages (when root) and the project's virtual environment.
#   scripts/setup.sh GROUP...     groups: build, test, lint, and interop (in .venv-interop)
# Does nothing, in a moment, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

install_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    echo "setup: these Debian packages are missing; install them as root:" >&2
    echo "  apt-get install ${missing[*]}" >&2
    exit 2
  fi
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

install_wheels() {
  local requirements=$1 venv=$2 stamp
  stamp=$venv/.$(basename "$1")
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  cmp -s "$requirements" "$stamp" && return
  echo "setup: installing $requirements into $venv"
  "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps -r "$requirements"
  cp "$requirements" "$stamp"
}

for group in "$@"; do
  [ -f "requirements/debian-$group.txt" ] || continue
  mapfile -t packages <"requirements/debian-$group.txt"
  install_packages "${packages[@]}"
done
for group in "$@"; do
  venv=.venv
  [ "$group" != interop ] || venv=.venv-interop
  [ ! -f "requirements/$group.txt" ] || install_wheels "requirements/$group.txt" "$venv"
done
