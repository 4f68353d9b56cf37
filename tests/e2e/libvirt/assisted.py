# SPDX-License-Identifier: GPL-2.0-or-later
"""Two hosts with our daemons, hook and preload, and what these did in a migration."""

import contextlib
import re
import threading
import time

from harness import host
from harness.operator import OperatorError
from harness.postcopyd import expect
from harness.vm import Spec

from .daemon import HostDaemon
from .domains import Domain, DomainError
from .hosts import USER, pair

# QEMU's own stream alone would take some seconds, so that there is a middle.
RATE = 32  # MiB/s
LEAST_FAULTS = 2000
SYSCTL = host.Path("/proc/sys/vm/unprivileged_userfaultfd")


def small(**changes):
    """A guest that is quick to fill, and has more pages than are ever counted on to fault."""
    return Spec(**{"mem_mb": 384, "fill_mb": 96, "zero_mb": 32, "zero_epoch": 1, "vcpus": 2,
                   **changes})


class Assisted:
    """A domain that runs on one of two hosts with daemons: what a scenario needs.

    source and destination are the daemons of the next migration.
    """

    def __init__(self, both, daemons, domain):
        self.pair = both
        self.domain = domain
        self._daemons = dict(zip(both.hosts, daemons))

    @property
    def source(self):
        """The daemon where the domain runs."""
        return self._daemons[self.domain.here.host]

    @property
    def destination(self):
        """The daemon at the other end."""
        return self._daemons[self.pair.other(self.domain.here.host)]

    def wait_token(self, timeout=5.0):
        """Waits until the source's daemon has put its token into the running domain."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(r"token=['\"]([0-9a-f]{64})['\"]",
                                      self.domain.here.host.virsh("dumpxml",
                                                                  self.domain.name).stdout)):
            if time.monotonic() > deadline:
                raise DomainError(f"no token of {self.source.name}'s in {self.domain.name}; "
                                  f"{self.source.log()[-500:]}")
        return found[1]

    def migrate(self, *options, **settings):
        """Begins a migration that our agent switches to post-copy."""
        return self.domain.migrate(*options, **{"postcopy": RATE, **settings})


@contextlib.contextmanager
def assisted(user="root", spec=None, source=None, destination=None, qemu_conf="",
             wait_token=True):
    """An Assisted domain that runs and has been looked at once; logs are shown if anything fails.

    source and destination are settings of the daemons by section.
    """
    if user == USER and SYSCTL.exists() and SYSCTL.read_text().strip() != "0":
        raise host.Unavailable(f"{SYSCTL} is not 0: any user may catch faults")
    with pair(user=user, installed=True, qemu_conf=qemu_conf) as both, \
            Domain(both, spec or small()) as domain:
        daemons = []
        for one, more in zip(both.hosts, (source, destination)):
            settings = {"libvirt": {"uri": "qemu:///system", "enable": "all"},
                        "import": {"around": "4K"}}
            for section, keys in (more or {}).items():
                settings.setdefault(section, {}).update(keys)
            daemons.append(one.add(HostDaemon(one, **settings)))
        try:
            for daemon in daemons:
                daemon.wait_libvirt()
            domain.start()
            case = Assisted(both, daemons, domain)
            if wait_token:
                case.wait_token()
            domain.here.wait_passes(1)
            yield case
        except BaseException:
            for daemon in daemons:
                print(f"-- daemon of {daemon.folder.name}\n{daemon.log()[-4000:]}", flush=True)
            raise


class Watch:
    """What a daemon says of a VM's import, asked for all the time; a context manager.

    last is the newest answer, also when the daemon is gone since.
    """

    def __init__(self, daemon, vm, interval=0.002):
        self._daemon = daemon
        self._vm = vm
        self._interval = interval
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self.last = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def wait(self, what, predicate, timeout=20.0):
        """Waits until predicate(import) holds; the import."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.last and predicate(self.last), timeout):
                raise DomainError(f"no import that {what}; the last was {brief(self.last)}")
            return self.last

    def wait_faults(self, least):
        """Waits until so many faults were read."""
        return self.wait(f"had {least} faults", lambda found: found["faults"] >= least)

    def _run(self):
        while not self._stop.is_set():
            with contextlib.suppress(OSError, OperatorError, ValueError):
                with self._daemon.operator(timeout=0.5) as operator:
                    while not self._stop.wait(self._interval):
                        self._look(operator)
            self._stop.wait(0.01)

    def _look(self, operator):
        try:
            imports = operator.ask("stats", vm=self._vm)["imports"]
        except OperatorError:
            return  # it knows no such VM yet
        if imports:
            with self._changed:
                self.last = imports[0]
                self._changed.notify_all()


def brief(found):
    """Of an import's figures, those that say how it went."""
    if not found:
        return "none"
    return {key: found.get(key) for key in ("state", "mode", "faults", "faults_present", "pages",
                                            "text", "reconnects")}


def relayed(at):
    """Fault messages that our preload passed on to QEMU on a host, by its own words at the end."""
    found = re.findall(r"(\d+) faults? relayed", at.client_log())
    if not found:
        raise DomainError(f"QEMU's faults never were the preload's: {at.client_log()[-600:]}")
    return int(found[-1])


def served(found, at, least=LEAST_FAULTS):
    """Faults were ours, all but 1 % resolved by a COPY that succeeded; what there is to say."""
    expect(found is not None, f"there was no import; the preload: {at.client_log()[-600:]}")
    expect(found["mode"] == "assist", f"import {brief(found)}")
    faults, to_qemu, ours = found["faults"], relayed(at), found["pages"]["by_fault"]
    expect(faults >= least, f"only {faults} faults: {brief(found)}")
    expect(ours >= 0.99 * (faults + to_qemu),
           f"{faults} faults and {to_qemu} relayed, but {ours} pages: {brief(found)}")
    return f"{faults} faults, {ours} pages by COPY, {to_qemu} relayed"


def job_is_right(migration):
    """libvirt's own account is what it always was."""
    job = migration.source.host.job(migration.domain.name, completed=True)
    expect(job.get("Job type") == "Completed" and job.get("Operation") == "Outgoing migration",
           f"job {job}")
