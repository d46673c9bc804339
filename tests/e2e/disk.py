# SPDX-License-Identifier: GPL-2.0
"""Block devices in the host VM, and looking at them from outside."""

import hashlib
import mmap
import os
import subprocess

from vmm import Failure, check

MIB = 1 << 20
CONFIG = "/sys/kernel/config/nullb"


def shell(*command, ok=(0,)):
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.STDOUT, check=False)
    check(result.returncode in ok, "%s failed with status %d: %s" % (
        " ".join(command), result.returncode, result.stdout.strip()[-600:]))
    return result.stdout


# A volatile write cache: what was not flushed is kept apart in it, so a flush
# has something to do.
CACHED = (("discard", 1), ("cache_size", 16))

# Zones of 1 MiB, of which the first two need not be written in order.
ZONED = (("zoned", 1), ("zone_size", 1), ("zone_nr_conv", 2), ("zone_max_open", 6),
         ("zone_max_active", 8))


def new_disk(name, mebibytes, attributes=CACHED):
    """A block device in memory."""
    if not os.path.isdir(CONFIG):
        shell("modprobe", "null_blk", "nr_devices=0")
        if not os.path.ismount("/sys/kernel/config"):
            shell("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    os.mkdir("%s/%s" % (CONFIG, name))
    set_attributes(name, ("size", mebibytes), ("memory_backed", 1), *attributes)
    return power_on(name)


def set_attributes(name, *attributes):
    for key, value in attributes:
        with open("%s/%s/%s" % (CONFIG, name, key), "w") as attribute:
            attribute.write(str(value))


def power_on(name):
    before = set(os.listdir("/sys/block"))
    set_attributes(name, ("power", 1))
    new = set(os.listdir("/sys/block")) - before
    check(len(new) == 1, "null_blk: expected one new device, got %s" % sorted(new))
    return "/dev/" + new.pop()


def cut_power(name):
    """What is in the volatile cache only is lost."""
    set_attributes(name, ("power", 0))
    return power_on(name)


def fill(device, image):
    shell("dd", "if=" + image, "of=" + device, "bs=1M", "conv=fsync")


def read_direct(device, offset=0, length=None):
    """Blocks of a device past its page cache, in pieces of at most 1 MiB."""
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    try:
        if length is None:
            length = os.lseek(fd, 0, os.SEEK_END) - offset
        buffer = mmap.mmap(-1, MIB)
        view = memoryview(buffer)
        while length:
            got = os.preadv(fd, [view[:min(MIB, length)]], offset)
            check(got > 0, "%s: nothing to read at %d" % (device, offset))
            yield buffer[:got]
            offset += got
            length -= got
    finally:
        os.close(fd)


def sha256_direct(device, offset=0, length=None):
    digest = hashlib.sha256()
    for piece in read_direct(device, offset, length):
        digest.update(piece)
    return digest.hexdigest()


def copy_direct(device, path, offset=0, length=None):
    with open(path, "wb") as copy:
        for piece in read_direct(device, offset, length):
            copy.write(piece)


def check_filesystem(image, replay=False):
    """fsck of an ext4 image. With replay, as after a crash, the journal is
    replayed first; nothing else may need a repair."""
    if replay:
        output = shell("e2fsck", "-p", "-E", "journal_only", image, ok=(0, 1))
    shell("e2fsck", "-fn", image)
    return output if replay else ""


def read_file(image, path):
    """A file of an ext4 image, without the kernel."""
    return subprocess.run(["debugfs", "-R", "cat " + path, image], check=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout


def check_manifest(image, directory, workdir):
    """Takes the files out of an ext4 image, without the kernel, and compares
    them with the checksums that the guest stored in MANIFEST; gives how many."""
    shell("rm", "-rf", workdir)
    os.makedirs(workdir)
    shell("debugfs", "-R", "rdump %s %s" % (directory, workdir), image)
    root = os.path.join(workdir, directory.strip("/"))
    count = 0
    try:
        with open(root + "/MANIFEST") as manifest:
            lines = manifest.read().splitlines()
    except FileNotFoundError:
        raise Failure("%s has no MANIFEST" % image) from None
    for line in lines:
        wanted, name = line.split(None, 1)
        path = os.path.join(root, name)
        check(os.path.isfile(path), "%s is missing in the disk's file tree" % name)
        with open(path, "rb") as data:
            found = hashlib.sha256(data.read()).hexdigest()
        check(found == wanted, "%s: checksum differs from the guest's" % name)
        count += 1
    check(count > 0, "MANIFEST is empty")
    return count
