#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""usage: profile.py SYMBOLS FEW MANY REQUESTS

Print what one request costs by function, in instructions: the difference of two
profiles of scripts/bench, one of them of REQUESTS more requests. SYMBOLS is the
kernel's /proc/kallsyms.
"""
import bisect
import collections
import sys


def read_symbols(path):
    symbols = []
    with open(path) as lines:
        for line in lines:
            address, kind, name = line.split()[:3]
            if kind in "tTwW":
                symbols.append((int(address, 16), name))
    symbols.sort()
    return [symbol[0] for symbol in symbols], [symbol[1] for symbol in symbols]


def read_profile(path, addresses, names):
    cost = collections.Counter()
    with open(path) as lines:
        for line in lines:
            address, instructions = line.split()
            address = int(address, 16)
            if address < 1 << 47:
                name = "[user space]"
            else:
                name = names[max(bisect.bisect(addresses, address) - 1, 0)]
            cost[name] += int(instructions)
    return cost


def main():
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    addresses, names = read_symbols(sys.argv[1])
    few = read_profile(sys.argv[2], addresses, names)
    many = read_profile(sys.argv[3], addresses, names)
    requests = int(sys.argv[4])
    print("instructions  function")
    rest = 0
    for name, cost in (many - few).most_common():
        cost /= requests
        if cost < 10:
            rest += cost
        else:
            print(f"{cost:12.1f}  {name}")
    print(f"{rest:12.1f}  [below 10 each]")
    print(f"{(sum(many.values()) - sum(few.values())) / requests:12.1f}  in all")


main()
