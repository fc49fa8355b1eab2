#!/bin/sh
# Installs this bundle into an environment of its own, without any network.
#
#     ./install.sh [--expect DIGEST] [--python PYTHON] [FOLDER]
#
# DIGEST is the one that `make bundle` printed and that somebody read to you. FOLDER is /opt/partbook where not given;
# it must not exist, so an installation that runs is never changed under its own feet.
set -eu

role=@ROLE@
foreign="@FOREIGN@"
expect=
python=python3
while [ $# -gt 0 ]; do
    case "$1" in
        --expect) expect=$2; shift 2 ;;
        --python) python=$2; shift 2 ;;
        -*) echo "install.sh: $1 is not known; see the head of this file." >&2; exit 2 ;;
        *) break ;;
    esac
done
prefix=${1:-/opt/partbook}
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if [ -e "$prefix" ]; then
    echo "install.sh: $prefix exists; move it away first (mv $prefix $prefix.old), or give another folder." >&2
    exit 2
fi

cd "$here"
if [ -n "$expect" ]; then
    found=$(sha256sum SHA256SUMS | cut -d ' ' -f 1)
    if [ "$found" != "$expect" ]; then
        echo "install.sh: SHA256SUMS has the digest $found, not the one you were read. Nothing was installed." >&2
        exit 2
    fi
fi
if ! sha256sum --check --strict --quiet SHA256SUMS; then
    echo "install.sh: the files named above are not those that were packed. Nothing was installed." >&2
    exit 2
fi

finished=
trap '[ -n "$finished" ] || rm -rf "$prefix"' EXIT
"$python" -m venv "$prefix"
# Each file is held against its hash once more, by pip; -I keeps the user's own packages and settings out.
PIP_CONFIG_FILE=/dev/null PIP_DISABLE_PIP_VERSION_CHECK=1 "$prefix/bin/python" -I -m pip install --isolated --quiet \
    --no-index --find-links "$here/wheels" --require-hashes --no-deps --requirement "$here/requirements.txt"
"$prefix/bin/python" -I -m pip check
cd /
"$prefix/bin/partbook" --help > /dev/null
for module in $foreign; do
    if ! "$prefix/bin/python" -I -c "from importlib.util import find_spec; raise SystemExit(bool(find_spec('$module')))"; then
        echo "install.sh: $module was installed, which does not belong on a $role's machine." >&2
        exit 2
    fi
done
finished=yes
"$prefix/bin/partbook" --version
echo "Installed for a $role in $prefix. The systemd units are in $here/units; docs/deploy.md goes on from here."
