#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Measures what the paper claims, with this trainer: `scripts/reproduce.sh --data FOLDER`. Every run
# is resumed where it was stopped and never done twice. See --help and docs/results.md.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
exec python3 "$root/scripts/reproduce.py" "$@"
