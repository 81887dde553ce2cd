"""Who and where the host is: host name, its line in /etc/hosts, time zone, locale.

What stood there before is recorded once, durably, before the first change, so that reset can bring it back.
hostname(5), hosts(5), localtime(5), locale.conf(5).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ansible_collections.kosmos.appliance.plugins.module_utils.host.durable import (
    make_folders,
    sync_folder,
    write_synced,
)
from ansible_collections.kosmos.appliance.plugins.module_utils.host.system import (
    HostError,
    read_text,
    run,
)

#: Debian's name for the host itself (Debian reference, 5.1.1): a name that resolves without any network.
OWN_ADDRESS = "127.0.1.1"
#: glibc has these without the package `locales`.
BUILT_IN_LOCALES = frozenset({"C", "POSIX", "C.UTF-8"})


@dataclass(frozen=True)
class Identity:
    """The four facts. `hosts_line` is the whole line of OWN_ADDRESS, empty when there is none; so is `locale`."""

    hostname: str
    hosts_line: str
    timezone: str
    locale: str


def declared(hostname: str, domain: str, timezone: str, locale: str) -> Identity:
    """Return the identity that these values mean."""
    name = f"{hostname}.{domain} {hostname}" if domain else hostname
    return Identity(hostname, f"{OWN_ADDRESS}\t{name}", timezone, locale)


@dataclass
class IdentityFiles:
    """The identity of the system below `root`. `set_kernel_name` is None where the kernel belongs to somebody else."""

    root: Path = Path("/")
    set_kernel_name: Callable[[str], None] | None = None
    kernel_name: Callable[[], str] | None = None
    log: list[str] = field(default_factory=list)

    @property
    def origin(self) -> Path:
        """Where the identity that we found at first is kept."""
        return self.root / "var/lib/kosmos/host_base/identity.json"

    def read(self) -> Identity:
        """Return the identity as the files tell it."""
        link = self.root / "etc/localtime"
        zone = str(link.readlink()).partition("zoneinfo/")[2] if link.is_symlink() else ""
        return Identity(
            hostname=(read_text(self.root / "etc/hostname") or "").strip(),
            hosts_line=next((line for line in self._hosts() if line.split()[:1] == [OWN_ADDRESS]), ""),
            timezone=zone,
            locale=self._language(),
        )

    def differs(self, wanted: Identity) -> dict[str, tuple[str, str]]:
        """Return what is not as wanted: name -> (found, wanted). The hosts line counts by its words."""
        found = self.read()
        pairs = {key: (value, asdict(wanted)[key]) for key, value in asdict(found).items()}
        different = {key: pair for key, pair in pairs.items() if pair[0].split() != pair[1].split()}
        if self.kernel_name and self.set_kernel_name and self.kernel_name() != wanted.hostname:
            different.setdefault("hostname", (self.kernel_name(), wanted.hostname))
        return different

    def apply(self, wanted: Identity, *, restoring: bool = False) -> None:
        """Write what differs. Raises HostError for a time zone or a locale that the host does not have.

        When restoring, the values are the host's own and are not questioned.
        """
        if not restoring and wanted.timezone and not (self.root / "usr/share/zoneinfo" / wanted.timezone).is_file():
            raise HostError(
                f"there is no time zone {wanted.timezone!r} in /usr/share/zoneinfo",
                reason="timezone",
                cure="Write a name from `timedatectl list-timezones`, such as Europe/Berlin.",
            )
        different = self.differs(wanted)
        if different and not self.origin.exists():
            make_folders(self.origin.parent)
            write_synced(self.origin, json.dumps(asdict(self.read()), indent=1) + "\n", 0o600)
        if "locale" in different:
            if not restoring:
                self._make_locale(wanted.locale)
            self._write_language(wanted.locale)
        if "timezone" in different:
            self._link_zone(wanted.timezone)
        if "hosts_line" in different:
            self._write_hosts(wanted.hosts_line)
        if "hostname" in different:
            self._replace("etc/hostname", f"{wanted.hostname}\n")
            if self.set_kernel_name:
                self.set_kernel_name(wanted.hostname)

    def original(self) -> Identity | None:
        """Return the identity recorded before our first change, or None when we changed nothing."""
        text = read_text(self.origin)
        return Identity(**json.loads(text)) if text else None

    def forget(self) -> None:
        """Remove the record after it has been restored."""
        self.origin.unlink(missing_ok=True)
        if self.origin.parent.is_dir() and not any(self.origin.parent.iterdir()):
            self.origin.parent.rmdir()
            sync_folder(self.origin.parent.parent)

    def _hosts(self) -> list[str]:
        return (read_text(self.root / "etc/hosts") or "").splitlines()

    def _write_hosts(self, wanted: str) -> None:
        lines = self._hosts()
        ours = [number for number, line in enumerate(lines) if line.split()[:1] == [OWN_ADDRESS]]
        after_localhost = next((n + 1 for n, line in enumerate(lines) if line.split()[:1] == ["127.0.0.1"]), 0)
        place = ours[0] if ours else after_localhost
        kept = [line for number, line in enumerate(lines) if number not in ours]
        self._replace(
            "etc/hosts", "".join(f"{line}\n" for line in [*kept[:place], *filter(None, [wanted]), *kept[place:]])
        )

    def _locale_file(self) -> str:
        # Debian 13 moved the file to /etc/locale.conf and left a link; Debian 12 has only the old one.
        old = self.root / "etc/default/locale"
        return "etc/default/locale" if old.is_file() and not old.is_symlink() else "etc/locale.conf"

    def _language(self) -> str:
        match = re.search(r'^\s*LANG="?([^"\n]*)"?', read_text(self.root / self._locale_file()) or "", re.MULTILINE)
        return match[1].strip() if match else ""

    def _write_language(self, locale: str) -> None:
        name = self._locale_file()
        lines = (read_text(self.root / name) or "").splitlines()
        kept = [line for line in lines if not re.match(r"\s*LANG=", line)]
        self._replace(name, "".join(f"{line}\n" for line in [*kept, *([f"LANG={locale}"] if locale else [])]))

    def _make_locale(self, locale: str) -> None:
        """Let locale-gen build a locale that glibc does not bring; /etc/locale.gen is where Debian looks it up."""
        if not locale or locale in BUILT_IN_LOCALES:
            return
        path = self.root / "etc/locale.gen"
        text = read_text(path) or ""
        commented = re.compile(rf"^#\s*({re.escape(locale)} .*)$", re.MULTILINE)
        if not re.search(rf"^{re.escape(locale)} ", text, re.MULTILINE):
            if not commented.search(text):
                raise HostError(
                    f"/etc/locale.gen knows no locale {locale!r}",
                    reason="locale",
                    cure="Write a name from /usr/share/i18n/SUPPORTED, such as en_GB.UTF-8; or C.UTF-8.",
                )
            self._replace("etc/locale.gen", commented.sub(r"\1", text, count=1))
        done = run(["locale-gen"], timeout_seconds=600)
        if done.rc != 0:
            raise HostError(
                f"locale-gen failed: {done.text}", reason="locale", cure="Install the package locales, then run again."
            )

    def _link_zone(self, timezone: str) -> None:
        link, temporary = self.root / "etc/localtime", self.root / "etc/.localtime.kosmos-new"
        temporary.unlink(missing_ok=True)
        if timezone:
            temporary.symlink_to(f"/usr/share/zoneinfo/{timezone}")
            temporary.replace(link)
        else:
            link.unlink(missing_ok=True)
        sync_folder(link.parent)
        if (self.root / "etc/timezone").exists() and timezone:
            self._replace("etc/timezone", f"{timezone}\n")

    def _replace(self, name: str, text: str) -> None:
        path = self.root / name
        try:
            write_synced(path, text)
        except OSError as exc:
            # A container engine mounts these files into place: they cannot be renamed over, only written.
            if exc.errno not in {errno.EBUSY, errno.EXDEV}:
                raise
            with path.open("r+") as stream:
                stream.truncate()
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
