# SPDX-License-Identifier: GPL-2.0
"""QEMU with a guest, as the end-to-end tests see it: QMP, a shell in the guest,
the counters of the kernel's data path."""

import glob
import json
import os
import re
import select
import socket
import subprocess
import time


class Failure(Exception):
    """A test failed; the text says what was expected and what came."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def wait_for(condition, seconds, text):
    """Waits until condition() is true and returns what it gave."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        check(time.monotonic() < end, "%s: not within %d s" % (text, seconds))
        time.sleep(0.1)


class Qmp:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.events = []
        self._read(60)
        self.command("qmp_capabilities")

    def _read(self, seconds):
        self.socket.settimeout(seconds)
        try:
            line = self.file.readline()
        except TimeoutError:
            raise Failure("QMP: no answer within %d s" % seconds) from None
        check(line, "QMP: QEMU closed the connection")
        return json.loads(line)

    def command(self, name, **arguments):
        arguments = {key.replace("_", "-"): value
                     for key, value in arguments.items()}
        request = {"execute": name, "arguments": arguments}
        self.file.write(json.dumps(request) + "\n")
        self.file.flush()
        while True:
            answer = self._read(120)
            if "event" in answer:
                self.events.append(answer)
            elif "error" in answer:
                raise Failure("QMP %s: %s" % (name, answer["error"]["desc"]))
            else:
                return answer["return"]

    def wait_event(self, name, seconds, **data):
        """Waits for an event with this data, earlier ones included."""
        end = time.monotonic() + seconds
        while True:
            for event in self.events:
                found = event.get("data", {})
                if event["event"] == name and all(
                        found.get(key) == value for key, value in data.items()):
                    self.events.remove(event)
                    return event
            left = end - time.monotonic()
            check(left > 0, "no event %s %s within %d s" % (name, data, seconds))
            self.socket.settimeout(left)
            try:
                line = self.file.readline()
            except TimeoutError:
                continue
            check(line, "QMP: QEMU closed the connection")
            answer = json.loads(line)
            if "event" in answer:
                self.events.append(answer)


def clock_rate():
    """What scripts/vm has told this kernel of its clock, for the guest's kernel: both
    count the ticks of the same processor, and cannot measure them on a busy one."""
    with open("/proc/cmdline") as words:
        return " ".join(word for word in words.read().split()
                        if word.startswith("tsc_early_khz="))


class Vmm:
    """A running QEMU; arguments are added to those that every test needs."""

    def __init__(self, kernel, workdir, arguments, append=""):
        self.workdir = workdir
        self.console = workdir + "/console"
        self.errors = workdir + "/qemu-stderr"
        self.samples = {}
        os.makedirs(workdir, exist_ok=True)
        for name in ("qmp", "shell"):
            if os.path.exists("%s/%s" % (workdir, name)):
                os.unlink("%s/%s" % (workdir, name))
        command = [
            "qemu-system-x86_64", "-L", "/firmware", "-nodefaults",
            "-no-user-config", "-display", "none", "-machine", "q35",
            "-accel", "tcg,thread=multi", "-cpu", "qemu64", "-m", "256",
            "-action", "reboot=shutdown,shutdown=pause",
            "-kernel", kernel,
            "-append", "console=ttyS0 root=/dev/vda1 rw init=/init quiet "
                       "init_on_alloc=1 panic=-1 reboot=t %s %s"
                       % (clock_rate(), append),
            "-chardev", "file,id=console,path=" + self.console,
            "-serial", "chardev:console",
            "-chardev", "socket,id=shell,server=on,wait=off,path=%s/shell" % workdir,
            "-serial", "chardev:shell",
            "-chardev", "socket,id=qmp,server=on,wait=off,path=%s/qmp" % workdir,
            "-mon", "chardev=qmp,mode=control",
        ] + arguments
        with open(self.errors, "w") as errors:
            # pylint: disable=consider-using-with
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        wait_for(lambda: os.path.exists(workdir + "/shell") and
                 os.path.exists(workdir + "/qmp") or self.gone(),
                 60, "QEMU's start")
        check(not self.gone(), "QEMU did not start: " + self.stderr())
        self.pending = b""
        try:
            self.shell = socket.socket(socket.AF_UNIX)
            self.shell.connect(workdir + "/shell")
            self.qmp = Qmp(workdir + "/qmp")
        except (OSError, Failure) as error:
            self.kill()
            raise Failure("QEMU did not start (%s, status %d): %s" % (
                error, self.process.returncode, self.stderr())) from None

    def gone(self):
        return self.process.poll() is not None

    def stderr(self):
        with open(self.errors) as errors:
            return errors.read().strip()

    def console_tail(self, lines=15):
        with open(self.console, errors="replace") as console:
            return console.read().replace("\r", "").split("\n")[-lines:]

    def _answer(self, seconds, what):
        end = time.monotonic() + seconds
        while True:
            match = re.search(rb"<<<(\d+)>>>\r?\n", self.pending)
            if match:
                output = self.pending[:match.start()].decode(errors="replace")
                self.pending = self.pending[match.end():]
                return int(match.group(1)), output
            self.receive(end - time.monotonic(), what)

    def receive(self, seconds, what):
        """Waits for output of the guest and adds it to self.pending."""
        check(seconds > 0, "guest: %s: no answer in time" % what)
        if not select.select([self.shell], [], [], seconds)[0]:
            return
        data = self.shell.recv(65536)
        check(data, "guest: %s: QEMU is gone: %s" % (what, self.stderr()))
        self.pending += data

    def wait_boot(self, seconds):
        self._answer(seconds, "boot")

    def start_in_guest(self, command):
        self.shell.sendall(command.encode() + b"\n")

    def run(self, command, seconds=120):
        """Runs a shell command in the guest; gives its output."""
        status, output = self.run_status(command, seconds)
        check(status == 0, "guest: '%s' failed with status %d: %s"
              % (command, status, output.strip()[-600:]))
        return output

    def run_status(self, command, seconds=120):
        self.start_in_guest(command)
        return self._answer(seconds, command)

    def data_path(self, device):
        """Where the requests of a device are served now, and why there."""
        path = "/machine/peripheral/" + device
        return (self.qmp.command("qom-get", path=path, property="data-path"),
                self.qmp.command("qom-get", path=path, property="data-path-reason"))

    def wait_data_path(self, device, wanted, seconds=60):
        try:
            wait_for(lambda: self.data_path(device)[0] == wanted, seconds, "")
        except Failure:
            raise Failure("%s: data path is %s (%s), wanted %s" %
                          ((device,) + self.data_path(device) + (wanted,))) from None

    def migration(self):
        """How far the migration is that was begun."""
        return self.qmp.command("query-migrate").get("status")

    def drain_all(self):
        """Any change of the block graph drains all disks for a moment."""
        self.qmp.command("blockdev-add", driver="null-co", node_name="other",
                         read_zeroes=True)
        self.qmp.command("blockdev-del", node_name="other")

    def kernel_counters(self):
        """What the module counted, per open /dev/vhost-blk and request type:
        {fd: {"backend": name, "types": {type: [requests, bytes, failed]}}}.
        A queue's line stays after its device was handed back."""
        for link in glob.glob("/proc/%d/fd/*" % self.process.pid):
            try:
                if os.readlink(link) != "/dev/vhost-blk":
                    continue
                with open(link.replace("/fd/", "/fdinfo/")) as info:
                    text = info.read()
            except OSError:
                continue
            sample = {"backend": "none", "types": {}, "text": text}
            for line in text.splitlines():
                key, _, value = line.partition(":")
                match = re.fullmatch(r"queue-\d+-([a-z-]+)", key)
                words = value.split()
                if key == "vhost-blk-backend":
                    sample["backend"] = words[0]
                elif match and words[:1] == ["requests"]:
                    counts = sample["types"].setdefault(match.group(1), [0, 0, 0])
                    for i in range(3):
                        counts[i] += int(words[2 * i + 1])
            self.samples[os.path.basename(link)] = sample
        return self.samples

    def _rings(self):
        """Indexes of all virtqueues, as QEMU sees them."""
        for device in self.qmp.command("x-query-virtio"):
            path = device["path"]
            status = self.qmp.command("x-query-virtio-status", path=path)
            for queue in range(status["num-vqs"]):
                try:
                    yield "ring: %s %s" % (path, self.qmp.command(
                        "x-query-virtio-queue-status", path=path, queue=queue))
                except Failure:
                    break

    def describe(self):
        """Where everything stands, in lines, for the log of a failed test."""
        self.kernel_counters()
        lines = ["kernel: " + line for sample in self.samples.values()
                 for line in sample["text"].splitlines()]
        if not self.gone():
            try:
                lines += self._rings()
            except (Failure, OSError, ValueError) as error:
                lines.append("ring: " + str(error))
        lines += ["qemu: " + line for line in self.stderr().splitlines()[-5:]]
        return lines + ["guest: " + line for line in self.console_tail()]

    def shut_down(self, seconds=120):
        """Ends the guest in an orderly way and QEMU with it."""
        self.run("sync; mount -o remount,ro /", seconds)
        self.start_in_guest("reboot -f")
        self.qmp.wait_event("SHUTDOWN", seconds)
        self.kernel_counters()
        self.quit()

    def quit(self):
        self.qmp.command("quit")
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Failure("QEMU does not end within 60 s of quit") from None
        check(status == 0, "QEMU ended with status %d: %s" % (status, self.stderr()))

    def kill(self):
        """As the OOM killer or an administrator would."""
        self.process.kill()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            raise Failure("QEMU does not end within 60 s of SIGKILL") from None
