# SPDX-License-Identifier: GPL-2.0
"""A guest for a machine that has none: a driver of each virtio-blk disk

It speaks QEMU's qtest protocol, in which the processor's part is played from
outside, and reads the first sector of each disk again and again, until QEMU is gone.
"""
import socket
import struct
import threading
import time

PCI_ADDRESS, PCI_DATA = 0xcf8, 0xcfc
TRANSITIONAL_BLK = 0x10011af4
IO_BASE, IO_STEP = 0xd000, 0x80
# What a disk has of the memory, and in there its only request and the data. The ring
# comes first.
MEMORY, MEMORY_STEP = 16 << 20, 256 << 10
REQUEST, STATUS, DATA = 0x20000, 0x20010, 0x21000
PAGE = 4096
# A legacy device's registers
FEATURES, QUEUE_PFN, QUEUE_SIZE, QUEUE_SELECT = 4, 8, 12, 14
QUEUE_NOTIFY, STATUS_BYTE = 16, 18
ACKNOWLEDGE, DRIVER, DRIVER_OK = 1, 2, 4
NEXT, WRITE = 1, 2
# What is read where no device is
NOTHING = 0xff
PAUSE = 0.02


class Gone(Exception):
    pass


class Qtest:
    """QEMU's socket for the protocol, which the test may use as well"""

    def __init__(self, sock):
        self.sock = sock
        self.file = sock.makefile('r')
        self.lock = threading.Lock()

    def command(self, line):
        with self.lock:
            try:
                self.sock.sendall(line.encode() + b'\n')
                while True:
                    answer = self.file.readline()
                    if not answer:
                        raise Gone
                    if not answer.startswith('IRQ'):
                        return answer
            except OSError:
                raise Gone from None

    def get(self, line):
        return int(self.command(line).split()[1], 0)

    def serve(self, test):
        """Pass on what the test says"""
        with test.makefile('r') as lines:
            try:
                for line in lines:
                    test.sendall(self.command(line.rstrip('\n')).encode())
            except (OSError, Gone):
                pass
        try:
            test.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Disk:
    def __init__(self, qtest, slot):
        self.qtest = qtest
        self.slot = slot
        self.port = IO_BASE + slot * IO_STEP
        self.memory = MEMORY + slot * MEMORY_STEP
        self.asked = self.done = 0
        self.requests = 0

    def write(self, address, data):
        self.qtest.command(f'write {address:#x} {len(data)} 0x{data.hex()}')

    def out(self, size, register, value):
        self.qtest.command(f'out{size} {self.port + register:#x} {value:#x}')

    def get(self, size, register):
        return self.qtest.get(f'in{size} {self.port + register:#x}')

    def config(self, register, value):
        address = 1 << 31 | self.slot << 11 | register
        self.qtest.command(f'outl {PCI_ADDRESS:#x} {address:#x}')
        self.qtest.command(f'outl {PCI_DATA:#x} {value:#x}')

    def start(self):
        """Enable the device, and give it a ring"""
        self.config(0x10, self.port)
        self.config(4, 7)
        self.qtest.command(f'memset {self.memory:#x} {MEMORY_STEP:#x} 0x0')
        for status in (0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER):
            self.out('b', STATUS_BYTE, status)
        self.out('l', FEATURES, 0)
        self.out('w', QUEUE_SELECT, 0)
        size = self.get('w', QUEUE_SIZE)
        m = self.memory
        self.avail = m + 16 * size
        self.used = (self.avail + 6 + 2 * size + PAGE - 1) // PAGE * PAGE
        self.out('l', QUEUE_PFN, m // PAGE)
        self.write(m, struct.pack('<QIHHQIHHQIHH',
                                  m + REQUEST, 16, NEXT, 1,
                                  m + DATA, 512, NEXT | WRITE, 2,
                                  m + STATUS, 1, WRITE, 0))
        self.out('b', STATUS_BYTE, ACKNOWLEDGE | DRIVER | DRIVER_OK)
        self.asked = self.done = 0

    def step(self):
        """Ask once more if the last answer is there"""
        status = self.get('b', STATUS_BYTE)
        if status == NOTHING or not status & DRIVER_OK:
            # Not started, or reset by the test
            self.start()
            return
        used = self.qtest.get(f'readw {self.used + 2:#x}')
        if used != self.asked:
            return
        if used != self.done:
            status = self.qtest.get(f'readb {self.memory + STATUS:#x}')
            self.requests += status == 0
        self.done = used
        self.asked = (self.asked + 1) & 0xffff
        self.write(self.memory + STATUS, b'\xff')
        self.write(self.avail, struct.pack('<HH', 1, self.asked))
        self.out('w', QUEUE_NOTIFY, 0)


class Guest(threading.Thread):
    def __init__(self, qtest):
        super().__init__(daemon=True)
        self.qtest = qtest
        self.disks = {}
        # Each disk has answered, or nothing will any more
        self.ready = threading.Event()

    def find_disks(self):
        """Those that are there now: a test may plug and unplug them"""
        for slot in range(2, 32):
            address = 1 << 31 | slot << 11
            self.qtest.command(f'outl {PCI_ADDRESS:#x} {address:#x}')
            if self.qtest.get(f'inl {PCI_DATA:#x}') == TRANSITIONAL_BLK:
                self.disks.setdefault(slot, Disk(self.qtest, slot))

    def run(self):
        try:
            self.find_disks()
            while True:
                for disk in self.disks.values():
                    disk.step()
                if all(disk.requests for disk in self.disks.values()):
                    self.ready.set()
                    time.sleep(PAUSE)
        except Gone:
            self.ready.set()

    def requests(self):
        return sum(disk.requests for disk in self.disks.values())
