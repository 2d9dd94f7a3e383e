# The commands install and uninstall: units, pages, completions, user, folders, first configuration and key are put in
# place and taken away again. Each thing that is done is said; a second run finds everything there.
from __future__ import annotations

import contextlib
import os
import sys

from brokerd_client.address import CALLERS  # not OWNER's group, which reads the secrets

from brokerd.ctl.key_place import OWNER
from brokerd.ctl.terminal import Failed, ask, plain, write

TYPE_CHECKING = False  # typing's own would cost some milliseconds
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from brokerd.edge.installed import Done, Installed
    from brokerd.installing import Layout

FOLDERS = ("conf.d", "recipes", "secrets")  # beside the configuration, as tmpfiles.d/brokerd.conf has them


def install(arguments: Namespace) -> int:
    """Put everything in place, and say what comes next."""
    setup = Setup(arguments)
    setup.refuse_package()
    setup.put_in_place()
    if setup.is_image:
        return 0
    main, control = plain(str(setup.layout.config)), setup.control
    write("\nnext:")
    write(f"  brokerctl add --recipe NAME, or --issuer URL; or write {main}, then: brokerd --check")
    running = f"; if it runs already: {control} restart brokerd" if setup.has_systemd else ""
    write(f"  {setup.start}{running}")
    if setup.layout.is_system:
        write(f"  usermod -aG {CALLERS} USER, for each user who may connect; the rules say who gets what")
    elif setup.has_systemd:
        write("  loginctl enable-linger, for it to run while you are not logged in")
    return 0


def uninstall(arguments: Namespace) -> int:
    """Take away what install put there; with --purge what came to be since, too."""
    setup = Setup(arguments)
    if arguments.purge or not setup.installed:
        setup.refuse_package()
    if arguments.purge and not (arguments.dry_run or arguments.yes):
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failed("--purge deletes tokens and key for good, and nobody can be asked here; add --yes")
        if not ask("Delete the configuration, its secrets, the key and all stored tokens?"):
            raise Failed("nothing was changed")
    setup.take_away(purge=arguments.purge)
    return 0


class Setup:
    """An installation for the system or for one user, as the command line wants it."""

    def __init__(self, arguments: Namespace) -> None:
        """Raises Failed."""
        from pathlib import Path

        from brokerd.edge.installed import Installed

        self.dry: bool = arguments.dry_run
        self.root = Path(arguments.root or "/").absolute()
        self.is_image = self.root != Path("/")
        self.layout = self._layout(arguments)
        self.control = "systemctl" if self.layout.is_system else "systemctl --user"
        try:
            self.installed: Installed = Installed(self.layout.manifest, self.root, dry=self.dry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = f"{self.layout.manifest}, the list of what was installed, cannot be read: {type(error).__name__}"
            raise Failed(f"{plain(words)}; delete it, and install again") from None

    def put_in_place(self) -> None:
        """Beside a package only what that leaves to be made. Raises Failed."""
        from brokerd.ctl.key_place import make_key

        with _told("install again"):
            if self.package is None:
                self._put_files(self._programs())
            if self.is_image:
                return
            self._make_owner()
            write(first_configuration(self.layout.config, dry=self.dry))
            write(f"key: {plain(make_key(self.layout.config, self.layout, dry=self.dry))}")
            self._reload_units()

    def take_away(self, *, purge: bool) -> None:
        """Raises Failed."""
        if not self.installed:
            write(f"nothing of brokerd is installed under {plain(str(self.layout.prefix))}")
        if not self.is_image and (self.installed or purge):
            self._run(*self.control.split(), "disable", "--now", "brokerd.socket", "brokerd.service")
        with _told("repeat it"):
            self._say(self.installed.take_away(everything=True))
            self.installed.save()
            if not self.is_image:
                self._reload_units()
                self._purge() if purge else self._keep()

    def refuse_package(self) -> None:
        """Raises Failed."""
        if self.package is not None:
            raise Failed(f"{self.package} is a package's: install, upgrade and remove that as packages are")

    @property
    def package(self) -> Path | None:
        """The unit of a package that is installed as well."""
        from pathlib import Path

        units = Path("/usr/lib/systemd/system")
        if self.is_image or not self.layout.is_system or units == self.layout.units:
            return None
        return unit if (unit := units / "brokerd.service").exists() else None

    # -- the parts of an installation

    def _layout(self, arguments: Namespace) -> Layout:
        from pathlib import Path

        from brokerd.installing import of_system, of_user

        prefix = Path(arguments.prefix).absolute() if arguments.prefix else None
        is_root = os.geteuid() == 0
        if arguments.system:
            if not (is_root or self.is_image or self.dry):
                raise Failed("--system needs root: sudo, or for yourself alone: --user")
            if is_root and not self.is_image:
                _refuse_prefix_of_others(of_system(prefix).prefix)
            return of_system(prefix)
        if is_root and not self.is_image:
            raise Failed(
                "--user is for a person's own systemd, and brokerd never needs root: --system, or be that person"
            )
        return of_user(Path.home(), prefix)

    def _programs(self) -> Path:
        """The folder of this installation's programs. Raises Failed."""
        import sysconfig
        from pathlib import Path

        from brokerd.installing import why_hidden

        programs = Path(sysconfig.get_path("scripts"))
        if not (programs / "brokerd").exists():
            raise Failed(f"there is no brokerd in {plain(str(programs))}; install the package with pip or pipx first")
        if self.is_image:
            return programs
        if self.layout.is_system and (why := why_hidden(programs / "brokerd") or why_hidden(Path(sys.executable))):
            raise Failed(f"{plain(why)}; install the package elsewhere: python3 -m venv /opt/brokerd, or pipx --global")
        return programs

    def _put_files(self, programs: Path) -> None:
        from brokerd.installing import files, links

        texts = files(self.layout, programs, _manuals(), _completions(self.layout))
        self._say((path, self.installed.put(path, text)) for path, text in texts.items())
        if programs != self.layout.prefix / "bin":
            self._say((path, self.installed.link(path, to)) for path, to in links(self.layout, programs).items())
        self._say(self.installed.take_away(everything=False))  # what an older version had, and this one has not
        self.installed.save()

    def _make_owner(self) -> None:
        """The system's user and folders, as sysusers.d and tmpfiles.d say, or a user's own folders."""
        folder = self.layout.config.parent
        if not self.layout.is_system:
            for each in (folder, *(folder / name for name in FOLDERS)):
                if not (each.is_dir() or self.dry):
                    each.mkdir(mode=0o700, parents=True)
            return
        if self.package is not None:
            return
        library = self.layout.prefix / "lib"
        write(f"user {OWNER}, groups {OWNER} and {CALLERS}: {self._word('made', there=_uid() is not None)}")
        self._run("systemd-sysusers", str(library / "sysusers.d/brokerd.conf"), needed=True)
        write(f"{folder} and its folders: {self._word('made', there=folder.is_dir())}")
        self._run("systemd-tmpfiles", "--create", str(library / "tmpfiles.d/brokerd.conf"), needed=True)

    @property
    def has_systemd(self) -> bool:
        from brokerd.edge import service_manager

        return service_manager.is_running()

    @property
    def start(self) -> str:
        """The command that starts brokerd, here."""
        from shlex import quote

        if self.has_systemd:
            return f"{self.control} enable --now brokerd.socket brokerd.service"
        run = f"brokerd --config {plain(quote(str(self.layout.config)))}"
        return f"runuser -u brokerd -- {run}" if self.layout.is_system else run

    def _reload_units(self) -> None:
        if not self.has_systemd:
            write("systemd does not run here; it finds the units when it does")
            return
        self._run(*self.control.split(), "daemon-reload")

    # -- what an uninstall leaves, or does not

    def _left(self) -> list[Path]:
        """What came to be by running and configuring, as far as it is there."""
        from pathlib import Path

        from brokerd.installation import CREDENTIAL, SEALED

        layout = self.layout
        sealed = [Path(folder) / CREDENTIAL for folder in SEALED if layout.is_system]
        runtime = [Path("/run/brokerd")] if layout.is_system else []
        return [path for path in (layout.config.parent, layout.state, *sealed, *runtime) if path.exists()]

    def _keep(self) -> None:
        import sysconfig
        from pathlib import Path

        user = ["the user brokerd"] if self.layout.is_system and _uid() is not None else []
        if kept := [*(plain(str(path)) for path in self._left()), *user]:
            program = Path(sysconfig.get_path("scripts"), "brokerctl")  # no link leads to it any more
            whose = "--system" if self.layout.is_system else "--user"
            write(f"kept: {', '.join(kept)}; to delete them: {plain(str(program))} uninstall {whose} --purge")

    def _purge(self) -> None:
        import shutil

        for path in self._left():
            if not self.dry:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write(f"{plain(str(path))}: {self._word('deleted')}")
        if self.layout.is_system and _uid() is not None:
            self._run("userdel", OWNER)
            self._run("groupdel", CALLERS)

    # -- how it is said

    def _say(self, steps: Iterable[tuple[Path, Done]]) -> None:
        for path, done in steps:
            write(f"{plain(str(path))}: {self._word(done) if done.changes else done}")

    def _word(self, word: str, *, there: bool = False) -> str:
        if there:
            return "there already"
        return f"would be {word}" if self.dry else word

    def _run(self, *command: str, needed: bool = False) -> None:
        """One of the system's tools. Raises Failed where it is `needed`, else says what it said."""
        from brokerd.edge.service_manager import CommandFailed, run

        if self.dry:
            write(f"would run: {' '.join(command)}")
            return
        try:
            run(*command)
        except CommandFailed as error:
            if needed:
                raise Failed(f"{plain(str(error))}; mend that, and install again") from None
            write(plain(str(error)))
        else:
            write(" ".join(command))


def _refuse_prefix_of_others(prefix: Path) -> None:
    """What root starts would be theirs to change, and the list of what root removes too. Raises Failed."""
    from brokerd.edge.acting import NotOnes, owner_of

    try:
        owner = owner_of(prefix)
    except NotOnes as error:
        raise Failed(plain(str(error))) from None
    if owner is not None:
        raise Failed(f"{plain(str(prefix))} is the user {owner.uid}'s to change; name another --prefix, or use --user")


@contextlib.contextmanager
def _told(remedy: str) -> Iterator[None]:
    """What the system refuses ends the command with a line that says so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"{plain(str(error.filename))}: {error.strerror}; mend that, and {remedy}") from None


def first_configuration(main: Path, *, dry: bool) -> str:
    """What was done, or found. Raises OSError."""
    from brokerd.edge.drop_in import Files
    from brokerd.installing import example

    if main.exists():
        return f"{plain(str(main))}: there already"
    if dry:
        return f"{plain(str(main))}: would be written, all in comments"
    Files().create({main: example(main)}, main.parent, private=frozenset())
    return f"{plain(str(main))}: written, all in comments"


def _uid() -> int | None:
    import pwd

    try:
        return pwd.getpwnam(OWNER).pw_uid
    except KeyError:
        return None


def _manuals() -> dict[str, str]:
    from brokerd.ctl.manual import pages

    return pages()


def _completions(layout: Layout) -> dict[str, str]:
    from brokerd.ctl.arguments import SHELLS
    from brokerd.ctl.completion import completion_script
    from brokerd.installing import COMPLETIONS

    shells = [shell for shell in SHELLS if shell in COMPLETIONS and (layout.is_system or shell != "zsh")]
    return {shell: completion_script(shell) for shell in shells}
