# SPDX-License-Identifier: GPL-2.0
"""A block device of the host's in the place of an image"""
import errno
import fcntl
import os
import struct

LOOP_CONFIGURE = 0x4c0a
LOOP_CTL_GET_FREE = 0x4c82
LO_FLAGS_AUTOCLEAR = 4
# struct loop_config: the file, the block size, and a struct loop_info64, of which
# only the flags are not zero
CONFIG = struct.Struct('=II52xI176x64x')


class Loop:
    """One that is gone when nobody has it open any more"""

    def __init__(self, image):
        with open(image, 'r+b') as file:
            while True:
                self.open_free()
                try:
                    fcntl.ioctl(self.fd, LOOP_CONFIGURE,
                                CONFIG.pack(file.fileno(), 0, LO_FLAGS_AUTOCLEAR))
                    return
                except OSError as error:
                    os.close(self.fd)
                    # Another QEMU was faster
                    if error.errno != errno.EBUSY:
                        raise

    def open_free(self):
        control = os.open('/dev/loop-control', os.O_RDWR)
        self.path = f'/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}'
        os.close(control)
        self.fd = os.open(self.path, os.O_RDWR)
