# Sourced by the other scripts: makes .venv from a pinned, hashed lock on first use, and again when the lock changes.
# Needs nothing but Linux and Python >= 3.10 with venv.
set -euo pipefail
if [ "$(uname -s)" != Linux ]; then
    echo "$(uname -s): this runs on Linux only; elsewhere in a container or a virtual machine with it (WSL 2, Docker)" >&2
    exit 2
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bootstrap() {
    local lock=$1 stamp=.venv/.installed python
    if [ -f "$stamp" ] && grep -qxF "$(sha256sum "$lock")" "$stamp"; then
        return
    fi
    python=${PYTHON:-python3}
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        echo "$python: Python 3.10 or newer is needed; name one with PYTHON=/path/to/python3" >&2
        exit 2
    fi
    if [ ! -x .venv/bin/python ] && ! "$python" -m venv .venv; then
        rm -rf .venv
        echo "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 2
    fi
    echo "installing $lock into .venv (once) ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$lock"
    # The development lock holds all of the runtime's, at the same versions.
    if [ "$lock" = requirements-dev.lock ]; then
        sha256sum requirements.lock requirements-dev.lock > "$stamp"
    else
        sha256sum requirements.lock > "$stamp"
    fi
}
