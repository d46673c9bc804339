# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Helpers that the scripts share. Source it from bash after "set -eu"; it works
# on the checkout it lies in, wherever the caller stands.

shopt -s inherit_errexit

# The callers use what they need.
# shellcheck disable=SC2034
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
prog=$(basename "$0")
cache=${VHOST_BLK_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/vhost-blk}

# Messages go to stderr: stdout is for results.
say() {
	printf '%s: %s\n' "$prog" "$*" >&2
}

die() {
	printf '%s: error: %s\n' "$prog" "$*" >&2
	exit 1
}

# need TOOL...: stop unless all are there.
need() {
	local tool

	for tool; do
		PATH=$PATH:/usr/sbin:/sbin command -v "$tool" >/dev/null ||
			die "no $tool here; run scripts/setup first"
	done
}

# find_firmware DIR: what a QEMU in a VM boots its machines with. The array firmware
# gets the arguments for scripts/vm that put it into DIR there.
find_firmware() {
	local file

	firmware=()
	for file in seabios/bios-256k.bin qemu/linuxboot_dma.bin qemu/kvmvapic.bin; do
		file=/usr/share/$file
		[ -r "$file" ] ||
			die "$file is missing: apt-get install seabios qemu-system-data"
		firmware+=(--file "$file:$1/${file##*/}")
	done
}

# cache_dir NAME: a directory of that name in the cache.
cache_dir() {
	mkdir -p "$cache/$1" 2>/dev/null ||
		die "cannot write to $cache; set VHOST_BLK_CACHE to a directory of yours"
}

# need_space MEGABYTES: stop early on a full disk.
need_space() {
	local free

	cache_dir .
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$1" ] ||
		die "$cache needs $1 MB of free space and has $free; set VHOST_BLK_CACHE to a larger disk"
}

# hash_of FILE|DIRECTORY|STRING...: sixteen digits that change with the content
# of each file, with each file below a directory, and with each other string.
hash_of() {
	local input

	for input; do
		if [ -d "$input" ]; then
			(
				cd "$input" || exit
				find . -type f -print0 | LC_ALL=C sort -z |
					xargs -0r sha256sum
			)
		elif [ -f "$input" ]; then
			sha256sum <"$input"
		else
			printf '%s\n' "$input"
		fi
	done | sha256sum | cut -c1-16
}

heartbeat() {
	local label=$1 log=$2 start=$3 nap='' last

	trap 'kill "$nap" 2>/dev/null; exit 0' TERM
	while kill -0 $$ 2>/dev/null; do
		# Of its own: wait, unlike a foreground sleep, ends at once on TERM.
		sleep 10 >/dev/null 2>&1 &
		nap=$!
		wait "$nap"
		last=$(tail -n 1 "$log" | tr -d '\r' | cut -c1-60)
		say "$label: $((SECONDS - start)) s${last:+ ($last)}"
	done
}

# run LABEL LOG COMMAND...: run it with its output in LOG, say every ten seconds
# that it goes on, and on failure show the end of LOG and stop. COMMAND may be a
# function, with set -e in force.
run() {
	local label=$1 log=$2 start=$SECONDS pid beat='' rc=0 monitor=-m

	shift 2
	say "$label ..."
	: >"$log"
	# With job control the command has a process group of its own, which an
	# interrupted run can end as a whole.
	case $- in *m*) ;; *) monitor=+m ;; esac
	set -m
	("$@") >"$log" 2>&1 </dev/null &
	pid=$!
	set "$monitor"
	trap 'kill -TERM -- "-$pid" ${beat:+"$beat"} 2>/dev/null; trap - INT TERM; exit 130' INT TERM
	heartbeat "$label" "$log" "$start" >/dev/null &
	beat=$!
	wait "$pid" || rc=$?
	kill "$beat" 2>/dev/null || :
	wait "$beat" 2>/dev/null || :
	trap - INT TERM
	if [ "$rc" != 0 ]; then
		tail -n 25 "$log" | sed 's/^/    /' >&2
		die "$label failed; the whole log is $log"
	fi
	if [ $((SECONDS - start)) -ge 5 ]; then
		say "$label: done in $((SECONDS - start)) s"
	fi
}

# lock NAME: wait until no other run holds NAME, and hold it until unlock or the
# end of this process. The file descriptor is in lock_fd: a function that locks
# declares it local, and so may be called with another lock held.
lock() {
	cache_dir locks
	exec {lock_fd}>"$cache/locks/$1"
	if ! flock -n "$lock_fd"; then
		say "waiting for another run that works on $1"
		flock "$lock_fd"
	fi
}

unlock() {
	exec {lock_fd}>&-
}

# cache_make NAME BUILDER [ARGUMENT...]: make the cache entry NAME unless it is
# there, and put its path in REPLY. BUILDER is a function; it is called with a
# new directory and the arguments, and that directory becomes the entry when the
# function is done: whoever finds an entry finds it whole. What it prints does not
# mix with what our caller prints for its own.
cache_make() {
	local name=$1 builder=$2 path=$cache/$1 tmp=$cache/tmp/$1 lock_fd

	shift 2
	if [ ! -e "$path" ]; then
		lock "$name"
		if [ ! -e "$path" ]; then
			# Left by a run that was interrupted: we hold the lock.
			rm -rf "$tmp"
			mkdir -p "$tmp"
			"$builder" "$tmp" "$@" >&2
			mv "$tmp" "$path"
		fi
		unlock
	fi
	REPLY=$path
}

# log_file NAME: where to put the log of a step.
log_file() {
	cache_dir logs
	echo "$cache/logs/$1.log"
}

# The apt sources of the machine as lines "suite uri keyring", from one-line and
# from deb822 files. Only entries for binaries that are switched on.
apt_entries() {
	local file

	for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
		[ -f "$file" ] || continue
		sed -n 's/^[[:space:]]*deb[[:space:]]\{1,\}//p' "$file" | awk '{
			key = ""
			if ($0 ~ /^\[/) {
				options = $0
				sub(/\].*/, "", options)
				if (match(options, /signed-by=[^ \]]*/))
					key = substr(options, RSTART + 10, RLENGTH - 10)
				sub(/^\[[^]]*\][ \t]*/, "")
			}
			print $2, $1, key
		}'
	done
	for file in /etc/apt/sources.list.d/*.sources; do
		[ -f "$file" ] || continue
		# Comments may stand inside a stanza; an empty line ends it.
		{
			grep -v '^#' "$file"
			echo
		} | awk '
			function flush_stanza(   u, s, i, j, n, m) {
				if (types ~ /(^| )deb( |$)/ && enabled !~ /^no/) {
					n = split(suites, s, " ")
					m = split(uris, u, " ")
					for (i = 1; i <= n; i++)
						for (j = 1; j <= m; j++)
							print s[i], u[j], key
				}
				types = uris = suites = key = enabled = field = ""
			}
			/^[ \t]*$/ { flush_stanza(); next }
			/^[^ \t]/ {
				field = tolower($0)
				sub(/:.*/, "", field)
				sub(/^[^:]*:[ \t]*/, "")
			}
			field == "types" { types = types " " $0 }
			field == "uris" { uris = uris " " $0 }
			field == "suites" { suites = suites " " $0 }
			field == "signed-by" && $0 ~ /^[ \t]*\// { key = $1 }
			field == "enabled" { enabled = tolower($0) }
		'
	done
}

# Write a sources.list of Debian alone, with the suites we need, on the mirror
# that the machine uses for its own; and to the second file only what is of the
# machine's own release, for packages that are to be installed.
apt_write_list() {
	local list=$1 own=$2 main='' security='' key='' suite uri signed

	while read -r suite uri signed; do
		case $suite in
		bookworm|oldstable|stable)
			[ -n "$main" ] || { main=$uri key=$signed; } ;;
		bookworm-security|oldstable-security|stable-security)
			[ -n "$security" ] || security=$uri ;;
		esac
	done <<-END
	$(apt_entries)
	END
	[ -n "$main" ] ||
		die "no entry for Debian 12 (bookworm) in /etc/apt/sources.list or /etc/apt/sources.list.d; add one"

	if [ -z "$key" ]; then
		key=/usr/share/keyrings/debian-archive-keyring.gpg
	fi
	if [ -r "$key" ]; then
		key="[signed-by=$key] "
	else
		key=
	fi
	{
		echo "deb $key$main bookworm main"
		echo "deb $key$main bookworm-updates main"
		[ -z "$security" ] || echo "deb $key$security bookworm-security main"
	} >"$own"
	{
		cat "$own"
		echo "deb $key$main bookworm-backports main"
		echo "deb $key$main trixie-backports main"
		echo "deb-src $key$main trixie main"
		[ -z "$security" ] || echo "deb-src $key$security trixie-security main"
	} >"$list"
}

# apt COMMAND...: apt-get or apt-cache on the long list, with its state in the
# cache. The system's own apt set-up is neither changed nor able to break this.
apt() {
	local tool=$1 dir=$cache/apt

	shift
	"$tool" -q -o Dir::Etc::sourcelist="$dir/sources.list" \
		-o Dir::Etc::sourceparts=/dev/null \
		-o Dir::Etc::preferencesparts=/dev/null \
		-o Dir::Etc::preferences=/dev/null \
		-o Dir::State::lists="$dir/lists" -o Dir::Cache="$dir/cache" \
		-o APT::Sandbox::User=root -o APT::Get::List-Cleanup=true \
		-o Acquire::Languages=none -o Acquire::Retries=3 \
		-o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false \
		"$@"
}

# apt_update [now]: read the package lists, at most once a day unless "now".
apt_update() {
	local dir=$cache/apt lock_fd

	lock apt
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	apt_write_list "$dir/sources.list.new" "$dir/own.list"
	if [ "${1-}" = now ] || ! cmp -s "$dir/sources.list.new" "$dir/sources.list" ||
	    [ -z "$(find "$dir/updated" -mmin -1440 2>/dev/null)" ]; then
		mv "$dir/sources.list.new" "$dir/sources.list"
		if (run "reading Debian's package lists" "$(log_file apt-update)" \
		    apt apt-get update -o APT::Update::Error-Mode=any); then
			touch "$dir/updated"
		elif [ -e "$dir/updated" ]; then
			say "going on with the package lists of $(date -r "$dir/updated" +%F)"
		else
			exit 1
		fi
	fi
	unlock
}

# configure_kernel SOURCE BUILD FRAGMENT: tinyconfig with the fragment on top.
# An option of the fragment that does not come out as it says is an error.
configure_kernel() {
	local source=$1 build=$2 fragment=$3 old wanted missing=''

	mkdir -p "$build"
	old=$(mktemp)
	[ ! -e "$build/.config" ] || cp -p "$build/.config" "$old"
	make -C "$source" O="$build" tinyconfig
	grep -v '^# [^C]' "$fragment" >>"$build/.config"
	make -C "$source" O="$build" olddefconfig
	while read -r wanted; do
		case $wanted in
		CONFIG_*=*)
			grep -qxF "$wanted" "$build/.config" && continue ;;
		'# CONFIG_'*' is not set')
			wanted=${wanted#'# '}
			wanted=${wanted%' is not set'}
			grep -q "^$wanted=" "$build/.config" || continue ;;
		*)
			continue ;;
		esac
		missing="$missing${missing:+, }$wanted"
	done <"$fragment"
	# An equal file keeps its time, so that nothing is built again for it.
	if cmp -s "$build/.config" "$old"; then
		cp -p "$old" "$build/.config"
	fi
	rm -f "$old"
	[ -z "$missing" ] ||
		die "$(basename "$fragment"): this kernel's Kconfig does not give $missing"
}
