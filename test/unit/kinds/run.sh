#!/bin/sh
# Unit tests of src/kind, then whole attempts against a local cloud of their own.
#
#	test/unit/kinds/run.sh [DIR]      (DIR: for objects and the cloud's files)
#
# Ends the cloud it started, and nothing else.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
dir=${1:-$(mktemp -d)}
mkdir -p "$dir/cloud"
make -s -C "$here" BUILD="$dir/build"
make -s -C "$here" BUILD="$dir/build" build
rm -f "$dir/address"
python3 "$here/../../cloud/cloud.py" --dir "$dir/cloud" --speed 40 --address-file "$dir/address" >"$dir/cloud.log" 2>&1 &
pid=$!
trap 'kill $pid 2>/dev/null || true' EXIT
until [ -s "$dir/address" ]; do
	kill -0 $pid || { cat "$dir/cloud.log"; exit 1; }
	sleep 0.05
done
"$dir/build/attempts" "$(cat "$dir/address")"
