# A real systemd for a test: boot.sh boots it in namespaces of its own, with brokerd installed in it. It ends with the
# block that opened it.
from __future__ import annotations

import contextlib
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.waiting import pauses

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
BOOTS_WITHIN = 60.0  # seconds; a third of one alone
TICK = 0.02  # seconds between two looks at what tells nobody that it has changed
SLOW = 0.1  # seconds, for what has not changed for a while: a look starts three processes
PYTHON = "/usr/bin/python3"  # readable by the users in the box, as a home directory's is not
PACKAGES = ("/opt/brokerd/lib/own", "/opt/brokerd/lib/client", "/opt/brokerd/lib/packages")
NEEDED = ("unshare", "nsenter", "pivot_root", "ip", "systemd-run")


class Unavailable(Exception):
    """A box cannot be had here; the text says why."""


def missing() -> str | None:
    """Why no box can be had here; None where it can."""
    if os.geteuid() != 0:
        return "a box with systemd needs root"
    absent = [each for each in NEEDED if shutil.which(each) is None] + [str(SYSTEMD)] * (not SYSTEMD.exists())
    if absent:
        return f"a box with systemd needs {', '.join(absent)}"
    if _cgroups() is None:
        return "a box with systemd needs cgroup v2"
    return None


class Box:
    """A running system. `root` is a look into its files from outside."""

    def __init__(self, folder: Path, cgroup: Path, pid: int) -> None:
        self.folder = folder
        self.pid = pid
        self.root = Path(f"/proc/{pid}/root")
        self._cgroup = cgroup

    def run(self, *command: str, check: bool = True, input: str | None = None, within: float = 120) -> str:  # noqa: A002
        """The output of a command that runs in the box as root."""
        scope = self._cgroup / "exec.scope"
        scope.mkdir(exist_ok=True)
        enter = f'echo $$ >"{scope}/cgroup.procs"; exec nsenter -t {self.pid} -m -u -i -n -p -C -r -w -- "$@"'
        done = subprocess.run(
            ["/bin/bash", "-c", enter, "_", *command],
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=within,
        )
        assert done.returncode == 0 or not check, (
            f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{self.journal()}"
        )
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """A file of the configuration: root's, and brokerd may read it."""
        self.run("install", "-D", "-m", "0640", "-g", "brokerd", "/dev/stdin", path, input=text)

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def until(self, unit: str, name: str, *values: str, within: float = 30.0) -> str:
        """Waits until a unit's property is one of these."""
        end = time.monotonic() + within
        for pause in pauses(TICK, SLOW):
            if (found := self.property(unit, name)) in values:
                break
            assert time.monotonic() < end, f"{unit}: {name} is {found}, expected {values}\n{self.journal()}"
            time.sleep(pause)
        return found

    def journal(self, unit: str | None = "brokerd") -> str:
        """What was said of a unit, or everything. What a process says that ends at once may be in the latter only: its
        unit is looked up when it is there no more."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("journalctl", "--sync", check=False)  # what was said a moment ago may still be on its way
            return self.run("journalctl", "--no-pager", "-o", "cat", *(("-u", unit) if unit else ()), check=False)
        return ""


@contextlib.contextmanager
def booted(
    folder: Path,
    files: Mapping[str, str],
    mounts: Mapping[Path, str],
    root: Path | None = None,
    *,
    online: bool = False,
) -> Iterator[Box]:
    """A box with these files (absolute path: text), and with folders of this machine mounted read-only into it: a copy
    of this machine with brokerd as a package that nobody has installed as a service, or of the system under `root` as
    it is. `online`: in this machine's network instead of one of its own."""
    if (reason := missing()) is not None:
        raise Unavailable(reason)
    if root is None:
        files, mounts = {**brokerd_files(), **files}, {**brokerd_mounts(), **mounts}
    inside = folder / "files"
    inside.mkdir()
    for name, text in files.items():
        path = inside / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    if root is None:
        (inside / "opt/brokerd/bin/python3").symlink_to(PYTHON)
    cgroups = _cgroups()
    assert cgroups is not None
    cgroup = cgroups / f"brokerd-box-{os.getpid()}-{time.monotonic_ns()}"
    cgroup.mkdir()
    bound = [f"{source}:{target}" for source, target in mounts.items()]
    command = ["/bin/bash", HERE / "boot.sh", folder, cgroup, root or "/", *bound]
    environ = {**os.environ, "NETWORK": "host" if online else ""}
    boot = subprocess.Popen(command, start_new_session=True, env=environ)
    pid = None
    try:
        pid = _pid_one(boot, folder)
        box = Box(folder, cgroup, pid)
        end = time.monotonic() + BOOTS_WITHIN
        for pause in pauses(TICK, SLOW):
            if box.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"):
                break
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(pause)
        yield box
    finally:
        with contextlib.suppress(ProcessLookupError):  # PID 1 and unshare(1) ignore everything milder
            os.kill(pid or boot.pid, signal.SIGKILL)
        boot.wait()
        _remove(cgroup)


def brokerd_files() -> dict[str, str]:
    """A virtual environment in /opt/brokerd as pip leaves it, its packages being those that are mounted."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = {
        "/opt/brokerd/pyvenv.cfg": f"home = {Path(PYTHON).parent}\ninclude-system-site-packages = false\n",
        f"/opt/brokerd/lib/python{version}/site-packages/brokerd.pth": "".join(f"{each}\n" for each in PACKAGES),
    }
    programs = {"brokerd": "brokerd.daemon.main", "brokerctl": "brokerd.ctl", "brokerd-proxy": "brokerd.proxy.main"}
    for name, module in programs.items():
        call = f"import sys\nfrom {module} import main\nsys.exit(main())\n"
        found[f"/opt/brokerd/bin/{name}"] = f"#!/opt/brokerd/bin/python3\n{call}"
    return found


def brokerd_mounts() -> dict[Path, str]:
    packages = Path(site.getsitepackages()[0])
    return {
        ROOT / "brokerd": "/opt/brokerd/lib/own/brokerd",
        ROOT / "docs": "/opt/brokerd/lib/own/docs",  # brokerd.toml(5) is made of them; a wheel has a copy
        ROOT / "client": "/opt/brokerd/lib/client",
        packages: "/opt/brokerd/lib/packages",
    }


def _pid_one(boot: subprocess.Popen[bytes], folder: Path) -> int:
    """The only child of unshare(1), once it is systemd."""
    end = time.monotonic() + BOOTS_WITHIN
    while time.monotonic() < end:
        assert boot.poll() is None, f"the box ended: {(folder / 'log').read_text()}"
        with contextlib.suppress(OSError, IndexError):
            child = int(Path(f"/proc/{boot.pid}/task/{boot.pid}/children").read_text().split()[0])
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return child
        time.sleep(TICK)
    raise AssertionError(f"no systemd came up: {(folder / 'log').read_text()}")


def _cgroups() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    return None


def _remove(cgroup: Path) -> None:
    end = time.monotonic() + 10
    while cgroup.exists() and time.monotonic() < end:
        for path in sorted(cgroup.rglob("*"), key=lambda each: -len(each.parts)):
            if path.is_dir():
                with contextlib.suppress(OSError):
                    path.rmdir()
        with contextlib.suppress(OSError):
            cgroup.rmdir()
        time.sleep(TICK)
