#!/bin/sh
# Builds build/NAME.sys, and its PDB. Options are cargo's.
set -eu
cd "$(dirname "$0")"
cargo build --quiet --release "$@"
mkdir -p build
built="${CARGO_TARGET_DIR:-target}/x86_64-pc-windows-msvc/release"
cp "$built/NAME.exe" build/NAME.sys
cp "$built/NAME.pdb" build/NAME.pdb
