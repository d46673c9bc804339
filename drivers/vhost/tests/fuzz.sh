#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
set -eu

usage() {
	cat <<-END
	usage: fuzz.sh OUT SECONDS

	Run OUT/parse_fuzz on what OUT/parse_seeds writes and on what former runs
	found, for so many seconds. Prints TAP. A crashing input is left in OUT.
	END
}

case ${1-} in
-h|--help) usage; exit 0 ;;
esac
[ $# = 2 ] || { usage >&2; exit 2; }
out=$1 seconds=$2
case $seconds in
''|0*|*[!0-9]*)
	echo "fuzz.sh: error: FUZZ_SECONDS must be a number above 0, not '$seconds'" >&2
	exit 2
	;;
esac

mkdir -p "$out/seeds" "$out/corpus"
"$out/parse_seeds" "$out/seeds"
log=$out/parse_fuzz.log

echo 'TAP version 13'
echo '1..1'
echo "# fuzzing for $seconds s, log in $log"
status=0
"$out/parse_fuzz" -max_total_time="$seconds" -max_len=2048 -timeout=10 \
	-print_final_stats=1 -artifact_prefix="$out/" "$out/corpus" \
	"$out/seeds" >"$log" 2>&1 || status=$?
sed -n 's/^stat::/# /p; s/^INFO: Seed:/# seed:/p' "$log"
if [ "$status" = 0 ]; then
	echo 'ok 1 parse_fuzz'
	exit 0
fi
echo 'not ok 1 parse_fuzz'
grep -E 'not true|ERROR|runtime error|no buffer for it|^ *#[0-9]+ .*\.c:' "$log" |
	head -n 12 | sed 's/^/# /'
input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
[ -z "$input" ] || echo "# run again: $out/parse_fuzz $input"
exit 1
