# Real file systems that fail to order: a small tmpfs, and ext4 in an image on a small tmpfs, which is a disk whose
# blocks can run out under it. Mounted where a test says, and always unmounted again.
from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path


class Disk:
    """A file system for `at`, mounted. It can be filled, made read-only, taken away and brought back."""

    def __init__(self, at: Path, size: str = "1m") -> None:
        self.at = at
        self._size = size
        at.mkdir(0o700, exist_ok=True)
        self.mount()

    def mount(self) -> None:
        run("mount", "-t", "tmpfs", "-o", f"size={self._size},mode=0700", "tmpfs", self.at)

    def fill(self) -> None:
        """To the last byte."""
        fill(self.at / "ballast")

    def make_room(self) -> None:
        (self.at / "ballast").unlink()

    def unmount(self) -> None:
        """At once, whoever holds a file of it: an empty directory appears."""
        run("umount", "-l", self.at)

    def close(self) -> None:
        """Everything that is mounted there, what a test that failed has left too."""
        while subprocess.run(["umount", "-l", self.at], check=False, capture_output=True).returncode == 0:
            pass


class BlockDisk(Disk):
    """ext4 on a loop device. Its image lies on a tmpfs of its own; `break_` takes that one's room away."""

    def __init__(self, at: Path) -> None:
        self._backing = Disk(at.with_name("backing"), "4m")
        self._image = self._backing.at / "image"
        with self._image.open("wb") as file:
            file.truncate(6 * 1024 * 1024)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "root_owner=0:0", self._image)
        super().__init__(at)
        with contextlib.suppress(OSError):
            (at / "lost+found").rmdir()
        at.chmod(0o700)

    def mount(self) -> None:
        run("mount", "-o", "loop", self._image, self.at)

    def abort(self) -> None:
        """The kernel gives the file system up, as it does after an error: from now on it is read-only."""
        subprocess.run(["mount", "-o", "remount,abort", self.at], check=False, capture_output=True)

    def break_(self) -> None:
        """No block that was never written can be written: EIO."""
        self._backing.fill()

    def mend(self) -> None:
        self._backing.make_room()

    def mount_anew(self) -> None:
        """As an operator does: away with what failed, check it, mount it again."""
        self.unmount()
        subprocess.run(["fsck.ext4", "-p", self._image], check=False, capture_output=True)
        self.mount()

    def close(self) -> None:
        super().close()
        self._backing.close()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
