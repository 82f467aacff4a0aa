#!/usr/bin/env bash
# MkDocs 1.6.1: `mkdocs build --strict --quiet` accepts broken links that `mkdocs build --strict` refuses.
#
# `--strict` counts the warnings that are logged, and aborts if there are any. `--quiet` raises the level of the log to
# errors, so warnings are never logged and never counted: the site is built, the exit code is 0. A pipeline that adds
# --quiet for a shorter log no longer checks anything.
#
# Output seen:
#   --strict: exit code 1
#   --strict --quiet: exit code 0
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check mkdocs==1.6.1 click==8.3.1 >&2
mkdir "$work/docs"
echo "site_name: example" >"$work/mkdocs.yml"
printf '# Example\n\nSee [another page](missing.md).\n' >"$work/docs/index.md"
cd "$work"

build() {
    local code=0
    "$work/venv/bin/mkdocs" build "$@" --site-dir site >/dev/null 2>&1 || code=$?
    echo "$code"
}

strict="$(build --strict)"
quiet="$(build --strict --quiet)"
echo "--strict: exit code $strict"
echo "--strict --quiet: exit code $quiet"
[ "$strict" = 1 ] && [ "$quiet" = 0 ] || { echo "the behaviour has changed" >&2; exit 1; }
