# SPDX-License-Identifier: GPL-2.0-or-later
"""A host with a libvirtd of its own, and two of them with a wire between.

All that a host calls its own lies in one folder out here; inside it stands where libvirt looks for it.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from harness import host
from harness.postcopyd import BUILD

from .installed import install, prefix
from .namespace import Namespace, NamespaceError, wait_for

URI = "qemu:///system"
LIBVIRTD = Path("/usr/sbin/libvirtd")
DRIVER = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
DRIVERS_INSIDE = "/var/lib/libvirt/drivers"
NETWORK = "10.77.0"
USER = "libvirt-qemu"
LOG = "/var/log/libvirt/libvirtd.log"
SOCKET = "/run/libvirt/libvirt-sock"

# What libvirt found out about QEMU is kept from one run to the next: it takes a second to ask.
CACHE = BUILD / "tests" / "libvirt-cache"

# Everyone's log of guests, where QEMU creates files itself whoever it runs as.
GUESTS = "/var/log/libvirt/guests"
IMAGES = "/var/lib/libvirt/images"

PRIVATE = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
           "log": "/var/log/libvirt"}

LIBVIRTD_CONF = """
listen_tls = 0
listen_tcp = 1
listen_addr = "0.0.0.0"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
host_uuid = "{uuid}"
log_filters = "1:util.hook 3:*"
log_outputs = "1:file:{log}"
"""

# What differs from Debian's: there is no systemd, and so no cgroup and no virtlogd.
QEMU_CONF = """
user = "{user}"
group = "{group}"
remember_owner = 0
security_driver = "none"
cgroup_controllers = [ ]
stdio_handler = "file"
migration_host = "{address}"
migration_address = "0.0.0.0"
{more}
"""

# A guest's port that tells one host from the other.  QEMU reads it from a file, because a domain has the
# same description on both.
MARKER_CONF = """
[chardev "marker"]
  backend = "null"
[device "marker"]
  driver = "isa-debugcon"
  iobase = "0x402"
  readback = "{marker:#x}"
  chardev = "marker"
"""
MARKER = "/etc/libvirt/marker.cfg"

# Run inside at first.  /dev/kvm is as udev would make it.
SCRIPT = """
hostname {name}
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/libvirt /run/postcopyd
mount -t sysfs sysfs /sys
{binds}
if [ -c /dev/kvm ]; then
    mknod -m 666 /run/kvm c 10 232
    mount --bind /run/kvm /dev/kvm
fi
ip link set lo up
"""


def show(title, lines, most=40):
    """Prints the last lines of a log, cut where they are too long to tell anything."""
    print(f"-- {title}", *(line[:300] for line in list(lines)[-most:]), sep="\n", flush=True)


class Host:
    """A namespace with libvirtd in it; a context manager.

    number      1 or 2: addresses, names and uuids follow from it
    user        that QEMU runs as
    qemu_conf   more lines of libvirt's qemu.conf
    installed   this build's files, the hook among them, are where an installation puts them
    """

    def __init__(self, folder, number, *, user="root", qemu_conf="", installed=False):
        self.name = f"host{'ab'[number - 1]}"
        self.number = number
        self.user = user
        self.address = f"{NETWORK}.{number}"
        self.folder = Path(folder) / self.name
        self.libvirtd = None
        self._ends = contextlib.ExitStack()
        self._make_folders()
        self._write_configuration(qemu_conf)
        self._binds = {self.folder / path: inside for path, inside in PRIVATE.items()}
        self._binds[self.folder / "hosts"] = "/etc/hosts"
        if installed:
            ours = install(self, self.folder / "postcopyd.conf")
            self._binds[ours] = prefix()
        self.namespace = self._ends.enter_context(Namespace(self.name, self._script()))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Ends everything in it."""
        self._ends.close()

    def add(self, thing):
        """Ends before the host."""
        return self._ends.enter_context(thing)

    def path(self, inside):
        """By which a file of the host can be opened out here; it may have to be there already."""
        return self.namespace.path(inside)

    def run(self, *words, **options):
        """Runs a program on the host; its CompletedProcess."""
        return self.namespace.run(*words, **options)

    def start_libvirtd(self):
        """Only starts it."""
        self.path(SOCKET).unlink(missing_ok=True)
        with open(self.folder / "libvirtd.out", "ab") as output:
            # The drivers of networks, storage and devices take seconds to start and serve nothing
            # here.
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C",
                           "LIBVIRT_DRIVER_DIR": DRIVERS_INSIDE}
            self.libvirtd = self.namespace.start(LIBVIRTD, "--listen", stdout=output,
                                                 stderr=output, env=environment)

    def wait_libvirtd(self, timeout=30.0):
        """Waits until it answers."""
        def answers():
            if self.libvirtd.poll() is not None:
                raise NamespaceError(f"{self.name}: libvirtd ended: {self.log()[-500:]}")
            return self.path(SOCKET).exists()
        wait_for(f"libvirtd of {self.name}", answers, timeout)
        self.virsh("version", timeout=timeout)

    def restart_libvirtd(self):
        """As `systemctl restart libvirtd`: guests run on."""
        self.stop_libvirtd()
        self.start_libvirtd()
        self.wait_libvirtd()

    def uninstall(self):
        """Takes all of ours away again; libvirtd, that may have no guests, is told by a restart."""
        self.run("umount", prefix())
        shutil.rmtree(self.folder / "etc" / "hooks")
        shutil.rmtree(self.path("/run/postcopyd"))
        self.restart_libvirtd()

    def stop_libvirtd(self, timeout=10.0):
        """Ends libvirtd alone."""
        self.libvirtd.terminate()
        try:
            self.libvirtd.wait(timeout)
        except subprocess.TimeoutExpired:
            self.libvirtd.kill()
            self.libvirtd.wait()

    def virsh(self, *words, timeout=60.0, check=True):
        """Runs virsh; its CompletedProcess."""
        return self.run("virsh", "-q", "-c", URI, *words, timeout=timeout, check=check)

    def install_hook(self, name, text):
        """A script that libvirt calls; also while it runs, unless it is the first one."""
        hook = self.folder / "etc" / "hooks" / "qemu.d" / name
        hook.write_text(text)
        hook.chmod(0o755)

    def state(self, domain):
        """A domain's state and reason as virsh words them: ('running', 'booted')."""
        done = self.virsh("domstate", "--reason", domain, check=False)
        if done.returncode:
            return ("gone", "")
        state, _, reason = done.stdout.strip().partition(" (")
        return (state, reason.rstrip(")"))

    def job(self, domain, completed=False):
        """What virsh says of a domain's job, by the words before the colons."""
        words = ["domjobinfo", domain, *(["--completed"] if completed else [])]
        lines = self.virsh(*words, check=False).stdout.splitlines()
        pairs = (line.partition(":") for line in lines)
        return {key.strip(): " ".join(value.split()) for key, _, value in pairs if value}

    def log(self):
        """What libvirtd said."""
        parts = (self.folder / "libvirtd.out", self.folder / "log" / "libvirtd.log")
        return "\n".join(path.read_text(errors="replace") for path in parts if path.exists())

    def show_logs(self):
        """Prints what may tell why a test failed."""
        said = [line for line in self.log().splitlines()
                if not any(word in line for word in ("virHookCheck", "Cgroup", "cgroup"))]
        show(f"libvirtd {self.name}", said)
        for path in sorted((self.folder / "log" / "qemu").glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()
            show(f"{self.name} {path.name}", (line for line in lines if not line.endswith("\\")))
        for path in sorted((self.folder / "log" / "guests").glob("*")):
            show(f"{self.name} {path.name}", path.read_text(errors="replace").splitlines(), 8)

    def keep_cache(self):
        """What libvirt found out about this machine's QEMU serves the next run, too."""
        found = list((self.folder / "cache" / "qemu" / "capabilities").glob("*.xml"))
        for path in found:
            kept = CACHE / path.name
            if not kept.exists() or kept.read_bytes() != path.read_bytes():
                CACHE.mkdir(parents=True, exist_ok=True)
                partial = CACHE / f"{path.name}.{os.getpid()}"
                shutil.copyfile(path, partial)
                partial.replace(kept)

    def _make_folders(self):
        for path in ("etc/qemu", "etc/hooks/qemu.d", "lib/images", "lib/qemu", "lib/boot",
                     "cache/qemu/capabilities", "log/qemu", "log/guests", "lib/drivers"):
            (self.folder / path).mkdir(parents=True)
        for path in ("lib", "lib/images", "etc", "log", "cache", "cache/qemu"):
            (self.folder / path).chmod(0o755)
        (self.folder / "log" / "guests").chmod(0o777)
        (self.folder / "lib" / "drivers" / DRIVER.name).symlink_to(DRIVER)
        for path in CACHE.glob("*.xml"):
            shutil.copy(path, self.folder / "cache" / "qemu" / "capabilities")

    def _write_configuration(self, qemu_conf):
        uuid = f"{'ab'[self.number - 1] * 8}-0000-4000-8000-00000000000{self.number}"
        etc = self.folder / "etc"
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=uuid, log=LOG))
        (etc / "qemu.conf").write_text(QEMU_CONF.format(
            user=self.user, group="root" if self.user == "root" else "kvm", address=self.address,
            more=qemu_conf))
        (etc / "marker.cfg").write_text(MARKER_CONF.format(marker=0x10 + self.number))
        (self.folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{NETWORK}.{n} host{c}\n" for n, c in
                                              ((1, "a"), (2, "b"))))
        shutil.copy(host.testguest(), self.folder / "lib" / "images" / "testguest.elf")

    def _script(self):
        return SCRIPT.format(name=self.name, binds="\n".join(
            f"mount --bind '{path}' '{inside}'" for path, inside in self._binds.items()))


class Pair:
    """Two hosts, a wire between them, libvirtd on both; a context manager.

    Names and addresses are the same for each pair: nothing of it is seen outside the namespaces.
    """

    def __init__(self, folder, **options):
        self.folder = Path(folder)
        self._ends = contextlib.ExitStack()
        with contextlib.ExitStack() as begun:
            self.hosts = [begun.enter_context(Host(folder, number, **options))
                          for number in (1, 2)]
            self.a, self.b = self.hosts
            for one in self.hosts:
                one.namespace.wait()
            self._wire()
            for one in self.hosts:
                one.start_libvirtd()
            for one in self.hosts:
                one.wait_libvirtd()
            self._ends = begun.pop_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in self.hosts:
            one.keep_cache()
        self._ends.close()

    def show_logs(self):
        """Of both."""
        for one in self.hosts:
            one.show_logs()

    def slow_wire(self, rate):
        """Lets the wire carry so much each way ('1gbit').

        Its queue is the kernel's own, of three bands, and takes 50 ms or so to pass at 1 Gbit/s.
        """
        for one in self.hosts:
            one.run("ip", "link", "set", "wire", "txqueuelen", "100")
            one.run("tc", "qdisc", "add", "dev", "wire", "root", "handle", "1:", "tbf", "rate", rate,
                    "burst", "64kb", "latency", "50ms")
            one.run("tc", "qdisc", "add", "dev", "wire", "parent", "1:1", "pfifo_fast")

    def other(self, one):
        """The host at the other end of the wire."""
        return self.b if one is self.a else self.a

    def _wire(self):
        peer = f"/proc/{self.b.namespace.holder.pid}/ns/net"
        a, b = (f"ip addr add {one.address}/24 dev wire && ip link set wire up"
                for one in self.hosts)
        subprocess.run(["nsenter", f"--net=/proc/{self.a.namespace.holder.pid}/ns/net", "sh", "-c",
                        "ip link add wire type veth peer name wire "
                        f"netns {self.b.namespace.holder.pid} && {a} && exec nsenter --net={peer} "
                        f"sh -c '{b}'"], check=True, stdin=subprocess.DEVNULL)


def check():
    """What the hosts need of this machine."""
    if os.geteuid() != 0:
        raise host.Unavailable("not root: no namespaces")
    for needed in (LIBVIRTD, DRIVER):
        if not needed.exists():
            raise host.Unavailable(f"no {needed} (package libvirt-daemon-system)")
    for program in ("virsh", "unshare", "nsenter", "setpriv", "ip"):
        if not shutil.which(program):
            raise host.Unavailable(f"no {program}")


@contextlib.contextmanager
def pair(**options):
    """A Pair in a folder of its own; its logs are shown if what is done with it fails."""
    check()
    with host.workdir() as folder, Pair(folder, **options) as both:
        try:
            yield both
        except BaseException:
            both.show_logs()
            raise
