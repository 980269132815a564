# What serve, test, bench and package share: a virtual environment with exactly the packages of a lock file.
# To be sourced with $root set to the repository; who wants it elsewhere than in .venv sets $environment afterwards.
environment="$root/.venv"

fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

# The newest suitable Python, one that can make virtual environments before one that cannot.
find_python() {
    local name found=""
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        command -v "$name" >/dev/null 2>&1 || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
        if "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
        found="${found:-$name}"
    done
    echo "$found"
}

# Debian and Ubuntu ship Python without its venv module: install it as root, else say which package it is.
need_venv_module() {
    local python="$1" package
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    package="$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "installing $package" >&2
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } \
            >/dev/null || fail "$package could not be installed; see above"
    fi
    "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || fail "this Python has no venv module; install the package $package"
}

# need_environment LOCK: make $environment hold what requirements of LOCK say; does nothing when it already does.
# The mark holds the lock file and the repository's place, so that a moved repository is noticed.
need_environment() {
    local lock="$1" mark="$environment/.installed-${1%.lock}" python
    if [ -x "$environment/bin/python" ] && { echo "$root" && cat "$root/$lock"; } | cmp -s - "$mark"; then
        return
    fi
    python="$(find_python)"
    if [ -z "$python" ]; then
        fail "Python 3.11 or newer is needed$(command -v python3 >/dev/null 2>&1 && echo "; python3 here is $(python3 -V 2>&1)")"
    fi
    mkdir -p "$environment" 2>/dev/null && [ -w "$environment" ] || fail "cannot write to $environment"
    # Of two that start at once, one installs and the other waits; the lock lives as long as descriptor 9.
    exec 9<"$root"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    if ! { [ -x "$environment/bin/python" ] && { echo "$root" && cat "$root/$lock"; } | cmp -s - "$mark"; }; then
        make_environment "$python" "$lock"
        { echo "$root" && cat "$root/$lock"; } >"$mark"
    fi
    exec 9<&-
}

make_environment() {
    local python="$1" lock="$2" site
    if ! "$environment/bin/python" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        need_venv_module "$python"
        echo "making $environment with $("$python" -V)" >&2
        "$python" -m venv --clear "$environment" || fail "the virtual environment could not be made; see above"
    fi
    echo "installing the packages of $lock" >&2
    "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes --no-deps --requirement "$root/$lock" || fail "the packages of $lock could not be installed; see above"
    # The package itself needs no building: a path file makes it importable, a short script makes it a command.
    site="$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
    echo "$root" >"$site/keyserver.pth"
    printf '#!/bin/sh\nexec "%s" -m keyserver "$@"\n' "$environment/bin/python" >"$environment/bin/keyserver"
    chmod +x "$environment/bin/keyserver"
}
