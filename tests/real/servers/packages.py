"""Installs what a package-lock.json names, once for each checkout and lock; runs that come together wait."""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from tests.real.servers.child import UnavailableError

OLDEST_NODE = 20  # what oidc-provider 9 is known to run on
INSTALL_WITHIN = 180.0  # seconds; some five on a good line
QUIETLY = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
BOUNDED = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=30000")  # milliseconds


@functools.cache
def node() -> str:
    """The path of node. Raises UnavailableError where it is missing or too old."""
    program = shutil.which("node")
    if program is None:
        raise UnavailableError("oidc-provider needs node, and there is none in PATH")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    if int(said.strip().removeprefix("v").split(".")[0] or 0) < OLDEST_NODE:
        raise UnavailableError(f"oidc-provider needs node {OLDEST_NODE} or newer, and {program} is {said.strip()}")
    return program


def install(folder: Path) -> Path:
    """Has `npm ci` fill folder/node_modules unless it did so for this very lock; returns `folder`.

    Raises UnavailableError where npm is missing or fails, and remembers a failure for as long as this process lives."""
    wanted = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if _installed(folder) != wanted:
        reason = _npm_ci(folder, wanted)
        if reason is not None:
            raise UnavailableError(reason)
    return folder


def _installed(folder: Path) -> str | None:
    try:
        return (folder / "node_modules" / ".installed-lock").read_text()
    except FileNotFoundError:
        return None


@functools.cache
def _npm_ci(folder: Path, wanted: str) -> str | None:
    """Why it failed, or None."""
    npm = shutil.which("npm")
    if npm is None:
        return "oidc-provider needs npm, and there is none in PATH"
    guard = os.open(folder, os.O_RDONLY)  # the folder itself is the lock: no lock file to leave behind
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if _installed(folder) == wanted:
            return None
        done = subprocess.run(
            [npm, "ci", *QUIETLY, *BOUNDED],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=INSTALL_WITHIN,
        )
        if done.returncode != 0:
            return f"npm ci in {folder} failed:\n{done.stdout[:250]}"
        (folder / "node_modules" / ".installed-lock").write_text(wanted)  # npm ci begins by removing node_modules
    except subprocess.TimeoutExpired:
        return f"npm ci in {folder} did not end within {INSTALL_WITHIN} s"
    finally:
        os.close(guard)
    return None
