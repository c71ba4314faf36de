#!/bin/sh
# Builds the driver and tests it: INF, scripts, its whole life, and every schedule of one script with one preemption.
set -eu
cd "$(dirname "$0")"
./build.sh "$@"
dirql inf NAME.inf --device VVVV:DDDD

# The card: what its registers do.
card=pci,sheet=NAME.sheet
for script in tests/*.txt; do
    echo "$script"
    dirql run build/NAME.sys --inf NAME.inf --device "$card" --quiet --script "$script"
done
echo "started, moved, stopped, removed"
dirql run build/NAME.sys --inf NAME.inf --device "$card" --quiet
echo "explored"
dirql explore build/NAME.sys --inf NAME.inf --device "$card" --quiet --script tests/interrupt.txt --processors 2 --preemptions 1
