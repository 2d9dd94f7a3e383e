# The commands install and uninstall: units, manual pages, completions, a user, folders, a configuration and a key. Each
# step is printed. A second run of install changes nothing.
from __future__ import annotations

import contextlib
import os
import shutil
import sys
import sysconfig
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from shlex import quote

from brokerd_client.address import CALLERS  # not OWNER's group, which can read the secrets

from brokerd.ctl.command_table import SHELLS
from brokerd.ctl.commands.completion import completion_script
from brokerd.ctl.first_key import OWNER, make_key
from brokerd.ctl.terminal import Failed, ask, at_terminal, plain, write
from brokerd.doctor.proxies import USER as PROXY
from brokerd.edge.files.as_owner import OwnerUnclear, owner_of
from brokerd.edge.files.drop_in import CreatedFiles
from brokerd.edge.files.installed import FileOutcome, Installed
from brokerd.edge.peer.accounts import account
from brokerd.edge.systemd import service_manager
from brokerd.edge.systemd.service_manager import CommandFailed, run
from brokerd.setup.install_files import COMPLETIONS, FILES_UNIT, OPTIONAL, example, files, links, why_hidden
from brokerd.setup.installation import CREDENTIAL, SEALED
from brokerd.setup.layout import Layout, of_system, of_user

FOLDERS = ("conf.d", "recipes", "secrets")  # beside the configuration, the same as in tmpfiles.d/brokerd.conf


def install(arguments: Namespace) -> int:
    """Install everything, and say what to do next."""
    setup = Setup(arguments)
    setup.refuse_package()
    setup.put_in_place()
    if setup.is_image:
        return 0
    main, control = plain(str(setup.layout.config)), setup.control
    write("\nnext:")
    write(f"  brokerctl add --recipe NAME, or brokerctl add --issuer URL; or edit {main}, then: brokerd --check")
    running = f"; if brokerd runs already: {control} restart brokerd" if setup.has_systemd else ""
    write(f"  {setup.start}{running}")
    if setup.layout.is_system:
        write(f"  usermod -aG {CALLERS} USER, for each user who may connect; the rules decide what they may do")
    elif setup.has_systemd:
        write("  loginctl enable-linger, so that brokerd runs while you are not logged in")
    return 0


def uninstall(arguments: Namespace) -> int:
    """Remove what install has put in place; with --purge also everything that was made since."""
    setup = Setup(arguments)
    if arguments.purge or not setup.installed:
        setup.refuse_package()
    if arguments.purge and not (arguments.dry_run or arguments.yes):
        if not at_terminal():
            raise Failed("--purge deletes tokens and key for ever, and there is no terminal to ask at; add --yes")
        if not ask("Delete the configuration, its secrets, the key and all stored tokens?"):
            raise Failed("nothing was changed")
    setup.take_away(purge=arguments.purge)
    return 0


class Setup:
    """An installation for the system or for one user, as the command line says."""

    def __init__(self, arguments: Namespace) -> None:
        """Raises Failed."""
        self.dry: bool = arguments.dry_run
        self.root = Path(arguments.root or "/").absolute()
        self.is_image = self.root != Path("/")
        self.layout = self._layout(arguments)
        self.control = "systemctl" if self.layout.is_system else "systemctl --user"
        try:
            self.installed: Installed = Installed(self.layout.manifest, self.root, dry=self.dry)
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = f"cannot read {self.layout.manifest}, the list of installed files: {type(error).__name__}"
            raise Failed(f"{plain(words)}; delete it and install again") from None

    def put_in_place(self) -> None:
        """If a package is installed too, only what the package does not make. Raises Failed."""
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
            write(f"brokerd is not installed under {plain(str(self.layout.prefix))}")
        if not self.is_image and (self.installed or purge):
            for unit in OPTIONAL:
                if (self.root / str(self.layout.units / unit).lstrip("/")).exists():  # an older version had none
                    self._run(*self.control.split(), "disable", "--now", unit)
            self._run(*self.control.split(), "disable", "--now", "brokerd.socket", "brokerd.service")
            if (self.root / str(self.layout.units / FILES_UNIT[self.layout.is_system]).lstrip("/")).exists():
                self._run(*self.control.split(), "stop", "brokerd-files*.service", "brokerd-proxy*.service")
                self._run(*self.control.split(), "disable", FILES_UNIT[self.layout.is_system])
        with _told("run this command again"):
            self._say(self.installed.take_away(everything=True))
            self.installed.save()
            if not self.is_image:
                self._reload_units()
                self._purge() if purge else self._keep()

    def refuse_package(self) -> None:
        """Raises Failed."""
        if self.package is not None:
            remedy = "use the package manager to install, upgrade or remove it"
            raise Failed(f"{self.package} belongs to a package; {remedy}")

    @property
    def package(self) -> Path | None:
        """The unit of a package, if a package is installed too."""
        units = Path("/usr/lib/systemd/system")
        if self.is_image or not self.layout.is_system or units == self.layout.units:
            return None
        return unit if (unit := units / "brokerd.service").exists() else None

    # -- the parts of an installation

    def _layout(self, arguments: Namespace) -> Layout:
        prefix = Path(arguments.prefix).absolute() if arguments.prefix else None
        is_root = os.geteuid() == 0
        if arguments.system:
            if not (is_root or self.is_image or self.dry):
                raise Failed("--system needs root: use sudo, or --user to install for yourself only")
            if is_root and not self.is_image:
                _refuse_prefix_of_others(of_system(prefix).prefix)
            return of_system(prefix)
        if is_root and not self.is_image:
            raise Failed("--user installs for one person, and you are root: use --system, or run this as that person")
        return of_user(Path.home(), prefix)

    def _programs(self) -> Path:
        """The folder with this installation's programs. Raises Failed."""
        programs = Path(sysconfig.get_path("scripts"))
        if not (programs / "brokerd").exists():
            raise Failed(f"there is no brokerd in {plain(str(programs))}; install the package with pip or pipx first")
        if self.is_image:
            return programs
        if self.layout.is_system and (why := why_hidden(programs / "brokerd") or why_hidden(Path(sys.executable))):
            raise Failed(f"{plain(why)}; install the package elsewhere: python3 -m venv /opt/brokerd, or pipx --global")
        return programs

    def _put_files(self, programs: Path) -> None:
        texts = files(self.layout, programs, _completions(self.layout))
        self._say((path, self.installed.put(path, text)) for path, text in texts.items())
        if programs != self.layout.prefix / "bin":
            self._say((path, self.installed.link(path, to)) for path, to in links(self.layout, programs).items())
        self._say(self.installed.take_away(everything=False))  # files of an older version that this one does not have
        self.installed.save()

    def _make_owner(self) -> None:
        """Make the system's user and folders, as sysusers.d and tmpfiles.d say, or a user's folders."""
        folder = self.layout.config.parent
        if not self.layout.is_system:
            for each in (folder, *(folder / name for name in FOLDERS)):
                if not (each.is_dir() or self.dry):
                    each.mkdir(mode=0o700, parents=True)
            return
        if self.package is not None:
            return
        library = self.layout.prefix / "lib"
        write(f"user {OWNER}, groups {OWNER} and {CALLERS}: {self._word('made', there=_owner_exists())}")
        self._run("systemd-sysusers", str(library / "sysusers.d/brokerd.conf"), needed=True)
        write(f"{folder} and its folders: {self._word('made', there=folder.is_dir())}")
        self._run("systemd-tmpfiles", "--create", str(library / "tmpfiles.d/brokerd.conf"), needed=True)

    @property
    def has_systemd(self) -> bool:
        return service_manager.is_running()

    @property
    def start(self) -> str:
        """The command that starts brokerd on this machine."""
        if self.has_systemd:
            return f"{self.control} enable --now brokerd.socket brokerd.service"
        run = f"brokerd --config {plain(quote(str(self.layout.config)))}"
        return f"runuser -u brokerd -- {run}" if self.layout.is_system else run

    def _reload_units(self) -> None:
        if not self.has_systemd:
            write("systemd does not run here; it will find the units when it does")
            return
        self._run(*self.control.split(), "daemon-reload")

    # -- what an uninstall keeps or deletes

    def _left(self) -> list[Path]:
        """What running and configuring have made, if it exists."""
        layout = self.layout
        sealed = [Path(folder) / CREDENTIAL for folder in SEALED if layout.is_system]
        runtime = [Path("/run/brokerd")] if layout.is_system else []
        files = layout.state.with_name("brokerd-files")  # what `brokerctl files` remembers
        return [path for path in (layout.config.parent, layout.state, files, *sealed, *runtime) if path.exists()]

    def _keep(self) -> None:
        user = ["the user brokerd"] if self.layout.is_system and _owner_exists() else []
        if kept := [*(plain(str(path)) for path in self._left()), *user]:
            program = Path(sysconfig.get_path("scripts"), "brokerctl")  # the link to it is gone
            whose = "--system" if self.layout.is_system else "--user"
            write(f"kept: {', '.join(kept)}; to delete them: {plain(str(program))} uninstall {whose} --purge")

    def _purge(self) -> None:
        for path in self._left():
            if not self.dry:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write(f"{plain(str(path))}: {self._word('deleted')}")
        if self.layout.is_system and _owner_exists():
            for user in filter(account, (OWNER, PROXY)):
                self._run("userdel", user)
            self._run("groupdel", CALLERS)

    # -- printing and running

    def _say(self, steps: Iterable[tuple[Path, FileOutcome]]) -> None:
        for path, done in steps:
            write(f"{plain(str(path))}: {self._word(done) if done.changes else done}")

    def _word(self, word: str, *, there: bool = False) -> str:
        if there:
            return "there already"
        return f"would be {word}" if self.dry else word

    def _run(self, *command: str, needed: bool = False) -> None:
        """Run one of the system's tools. If it fails, raises Failed if it is `needed`, else prints its error."""
        if self.dry:
            write(f"would run: {' '.join(command)}")
            return
        try:
            run(*command)
        except CommandFailed as error:
            if needed:
                raise Failed(f"{plain(str(error))}; fix that and install again") from None
            write(plain(str(error)))
        else:
            write(" ".join(command))


def _refuse_prefix_of_others(prefix: Path) -> None:
    """Another user could change what root starts, and the list of what root deletes. Raises Failed."""
    try:
        owner = owner_of(prefix)
    except OwnerUnclear as error:
        raise Failed(plain(str(error))) from None
    if owner is not None:
        raise Failed(f"the user {owner.uid} can change {plain(str(prefix))}; name another --prefix, or use --user")


@contextlib.contextmanager
def _told(remedy: str) -> Iterator[None]:
    """Turn an OSError into Failed, with the remedy."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"{plain(str(error.filename))}: {error.strerror}; fix that and {remedy}") from None


def first_configuration(main: Path, *, dry: bool) -> str:
    """Write an example if there is no configuration; returns in words what was done or found. Raises OSError."""
    if main.exists():
        return f"{plain(str(main))}: there already"
    if dry:
        return f"{plain(str(main))}: would be written as an example, all in comments"
    CreatedFiles().create({main: example(main)}, main.parent, private=frozenset())
    return f"{plain(str(main))}: written as an example, all in comments"


def _owner_exists() -> bool:
    return account(OWNER) is not None


def _completions(layout: Layout) -> dict[str, str]:
    shells = [shell for shell in SHELLS if shell in COMPLETIONS and (layout.is_system or shell != "zsh")]
    return {shell: completion_script(shell) for shell in shells}
