# shellcheck shell=bash disable=SC2034
# Sourced by .ci/run and tests/run: finds or installs what they need. In CI a missing tool fails;
# elsewhere it is named, and what needs it is skipped.

tools_out="${CARGO_TARGET_DIR:-target}"
tools_missing=()

say() {
    printf '== %s\n' "$*" >&2
}

in_ci() {
    [ "${CI:-}" = "true" ]
}

# need TOOL PACKAGE CHECK...: runs CHECK; when it fails, installs PACKAGE where that is allowed.
need() {
    local tool=$1 package=$2
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $package"
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package"; } \
            >/dev/null 2>&1 || say "$package could not be installed"
        "$@" >/dev/null 2>&1 && return 0
    fi
    missing "$tool" "install the package $package"
    return 1
}

# missing TOOL HOW
missing() {
    say "missing: $1 ($2)"
    tools_missing+=("$1")
}

# fail_in_ci: ends a CI run that lacks a tool.
fail_in_ci() {
    if in_ci && [ "${#tools_missing[@]}" -gt 0 ]; then
        say "in CI nothing is skipped; missing: ${tools_missing[*]}"
        exit 1
    fi
}

need_venv() {
    need python python3 command -v python3 && need python python3-venv python3 -c 'import ensurepip, venv'
}

# venv DIR LOCK: a Python environment with exactly what the lock file names, made once per lock.
venv() {
    local dir=$1 lock=$2 stamp
    stamp="$(python3 --version) $(cksum <"$lock")"
    [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "installing what $lock names"
    rm -rf "$dir"
    mkdir -p "$(dirname "$dir")"
    python3 -m venv "$dir" \
        && "$dir/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes --only-binary=:all: -r "$lock" >&2 \
        && printf '%s\n' "$stamp" >"$dir/stamp"
}

need_node() {
    need node nodejs node_is_new_enough && need node npm command -v npm
}

# Debian's is 18; what the lock file names wants no less.
node_is_new_enough() {
    [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]
}

# node_modules DIR FROM: the packages that the lock file in FROM names, made once per lock.
node_modules() {
    local dir=$1 from=$2 stamp
    stamp="$(node --version) $(cksum <"$from/package-lock.json")"
    [ "$(cat "$dir/stamp" 2>/dev/null)" = "$stamp" ] && return 0
    say "installing what $from/package-lock.json names"
    rm -rf "$dir"
    mkdir -p "$dir"
    cp "$from/package.json" "$from/package-lock.json" "$dir" \
        && npm ci --prefix "$dir" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 \
        && printf '%s\n' "$stamp" >"$dir/stamp"
}
