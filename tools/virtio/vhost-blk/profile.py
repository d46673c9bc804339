#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""usage: profile.py [--lines] SYMBOLS FEW MANY REQUESTS

Print what one request costs by function, in instructions: the difference of two
profiles of scripts/bench, one of them of REQUESTS more requests. SYMBOLS is the
kernel's /proc/kallsyms, and lines "map ..." of the /proc/PID/maps of the server in user
space, whose part is told by file. With --lines, by what the functions are for, as far
as their names tell, and for scripts/bench-results to read.
"""
import bisect
import collections
import os
import re
import sys

DRIVER, OTHER = "[bench]", "other_parts_of_the_kernel"
# The first that a name matches.
GROUPS = (
    ("block_layer", r"blk|bio|blkdev|bdev|sbitmap|elv_|disk_|bvec|dio_|wbt_|rq_qos|"
     r"io_ticks|find_next_zero_bit"),
    ("pinning_of_memory", r"pin_user|unpin|gup_|folio|follow_page|pte_"),
    ("io_uring", r"^_*io_(?!schedule)"),
    ("the_scheduler", r"sched|enqueue|dequeue|ttwu|wake|__switch_to|switch_mm|"
     r"pick_|put_prev|set_next|update_(curr|load|rq|cfs|se|min|dead|ent)|reweight|"
     r"avg_vruntime|place_entity|select_(task|idle)|finish_task|prepare_task|psi_|"
     r"pelt|cpuacct|_eligible|util_est|cpu_clock|_entity|rb_insert|clear_delayed|"
     r"record_times|rcu_note|rseq|mm_cid|fpregs|load_tls|gsbase_inactive|"
     r"mem_cgroup_handle|task_rq|fpu_return|dl_server"),
    ("system_calls_and_eventfds", r"syscall|SYSCALL|sys_|eventfd|vfs_|ksys|fdget|fput|"
     r"rw_verify|do_epoll|ep_|aio_|security_|apparmor|aa_file|_copy_to_iter|"
     r"check_object|check_heap|virt_addr|rep_movs|exit_to_user|do_wait_intr"),
    ("the_clock", r"ktime|tsc"),
    ("locks_and_lists", r"spin_(un)?lock|rcu_read|list_(add|del)|mutex_"),
)


def read_symbols(path):
    """Addresses in rising order, and what begins at each: its name, and the module or
    the file. Between two files of user space lies the benchmark itself, or nothing."""
    symbols = [(0, DRIVER, DRIVER)]
    with open(path) as lines:
        for line in lines:
            words = line.split()
            if words[0] == "map":
                begin, end = words[1].split("-")
                name = os.path.basename(words[6]) if len(words) > 6 else "anonymous"
                name = "[%s]" % name.strip("[]")
                symbols.append((int(begin, 16), name, name))
                symbols.append((int(end, 16), DRIVER, DRIVER))
            elif words[1] in "tTwW":
                symbols.append((int(words[0], 16), words[2],
                                words[3] if len(words) > 3 else ""))
    # Stable: an end comes before a begin at the same address, as they were read.
    symbols.sort(key=lambda symbol: symbol[0])
    return [symbol[0] for symbol in symbols], [symbol[1:] for symbol in symbols]


def read_profile(path, addresses, symbols):
    cost = collections.Counter()
    with open(path) as lines:
        for line in lines:
            address, instructions = line.split()
            symbol = symbols[bisect.bisect(addresses, int(address, 16)) - 1]
            cost[symbol] += int(instructions)
    return cost


def group(name, place):
    """What a function is for."""
    if name == place:
        return "the_driver_in_user_space" if name == DRIVER else "the_server_in_user_space"
    if place:
        return place.strip("[]")
    for what, pattern in GROUPS:
        if re.search(pattern, name):
            return what
    return OTHER


def print_lines(costs):
    groups = collections.Counter()
    for (name, place), cost in costs.items():
        groups[group(name, place)] += cost
    for what, cost in groups.most_common():
        if cost >= 0.5:
            print(f"step={what} ns={cost:.1f}")


def print_functions(costs):
    print("instructions  function")
    rest = 0
    for (name, place), cost in costs.most_common():
        if cost < 10:
            rest += cost
        else:
            print(f"{cost:12.1f}  {name}{' ' + place if place not in ('', name) else ''}")
    print(f"{rest:12.1f}  [below 10 each]")
    print(f"{sum(costs.values()):12.1f}  in all")


def main():
    arguments, show = sys.argv[1:], print_functions
    if arguments[:1] == ["--lines"]:
        arguments.pop(0)
        show = print_lines
    if len(arguments) != 4:
        sys.exit(__doc__)
    addresses, symbols = read_symbols(arguments[0])
    few = read_profile(arguments[1], addresses, symbols)
    many = read_profile(arguments[2], addresses, symbols)
    many.subtract(few)
    requests = int(arguments[3])
    show(collections.Counter({symbol: cost / requests for symbol, cost in many.items()}))


main()
