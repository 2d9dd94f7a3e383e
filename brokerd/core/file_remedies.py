# Remedies that change who may open a file. They are offered only if nobody else depends on that file. Pure: the file's
# mode is an argument.
from __future__ import annotations

from shlex import quote

KIND, DIRECTORY, STICKY = 0o170000, 0o040000, 0o001000  # of st_mode, inode(7)
SHARED = frozenset(
    {
        *("/", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/run", "/run/lock", "/run/user", "/srv"),
        *("/etc/ssl", "/etc/ssl/certs", "/etc/ssl/private", "/etc/pki", "/etc/systemd", "/etc/credstore"),
        *("/etc/credstore.encrypted", "/run/credentials", "/run/credstore.encrypted", "/run/systemd"),
        *("/var", "/var/cache", "/var/lib", "/var/local", "/var/lock", "/var/log", "/var/mail", "/var/opt"),
        *("/var/run", "/var/spool", "/tmp", "/var/tmp"),  # noqa: S108 - nothing is made there
    }
)
SYSTEM = ("/bin", "/boot", "/dev", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")  # and all below
HOMES = ("/home", "/run/user")  # each directory in these belongs to one user


def is_shared(path: str, mode: int) -> bool:
    """Whether others than brokerd depend on the file or directory (`mode` is its st_mode): it belongs to the system, is
    a user's home, or everybody may make files there."""
    parent = path.rpartition("/")[0] or "/"
    if path in SHARED or parent in HOMES or any(path == each or path.startswith(f"{each}/") for each in SYSTEM):
        return True
    return bool(mode & STICKY) if mode & KIND == DIRECTORY else parent in SHARED


def change(command: str, path: str, mode: int, instead: str) -> str:
    """The command with the path; if others depend on the path, `instead`."""
    return instead if is_shared(path, mode) else f"{command} {quote(path)}"
