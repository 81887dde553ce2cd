"""The appliance file as types (kosmos/v1). Descriptions and examples serve editors and error messages alike.

A default here is what the mapping in playbooks/group_vars gives the roles when the key is absent; a test holds the two
together. Rules that look at more than one value are in rules.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kosmos_installer import field_types as types

API_VERSION = "kosmos/v1"
#: Below this a host cannot carry the appliance beside its agents; a 32 GB machine shows about 31 GiB.
APPLIANCE_MEMORY_GIB = 30


#: In a flow, places that are no zone.
PLACES = ("host", "management", "external", "any")
_PLACES = ", ".join(PLACES)
_ZONES: list[dict[str, Any]] = [
    {"name": "agent_internal", "vlan": 100, "cidr": "10.0.1.0/24", "address": "10.0.1.1"},
    {"name": "api_gateway", "vlan": 200, "cidr": "10.0.2.0/24", "address": "10.0.2.1"},
]


def _about(text: str, example: Any, **limits: Any) -> Any:
    """A required value: what it means, and one right example."""
    return Field(description=text, examples=[example], **limits)


class Section(BaseModel):
    """Nothing is guessed: unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_by_name=False, validate_by_alias=True)


class Operator(Section):
    """The account that the appliance never locks out."""

    user: types.UserName = _about("An existing account with an SSH key and sudo; not root.", "operator")


class Management(Section):
    """How the operator reaches the host."""

    interface: types.Interface = _about("Network interface of the management network.", "eno1")
    allowed_cidrs: list[types.Network] = _about(
        "Networks that may open SSH to the host; everybody else is dropped.", ["192.0.2.0/24"], min_length=1
    )


class Time(Section):
    """Where the host gets the time from: servers, or offline."""

    servers: list[types.ServerName] = Field(
        default=[], description="NTP servers, by name or address.", examples=[["ntp1.example.org", "192.0.2.123"]]
    )
    offline: bool = Field(
        default=False,
        description="True: no server is reachable, and the host keeps its own clock. Then servers is empty.",
        examples=[True],
    )


class Storage(Section):
    """The disks beside the system disk."""

    data_disk: types.DiskPath = _about(
        "The empty disk for data, by a name that survives a reboot: /dev/disk/by-id/... or /dev/disk/by-path/...",
        "/dev/disk/by-id/nvme-eui.0025385b21404321",
    )


class Zone(Section):
    """One VLAN on the trunk. The host is its gateway and decides what leaves it."""

    name: types.ZoneName = _about("Name of the zone: a-z, 0-9 and _, beginning with a letter.", "agent_internal")
    vlan: Annotated[int, Field(ge=1, le=4094)] = _about("VLAN number on the trunk (IEEE 802.1Q), 1 to 4094.", 100)
    cidr: types.Network4 = _about("Network of the zone.", "10.0.1.0/24")
    address: types.Address4 = _about("The host's own address in the zone.", "10.0.1.1")
    cidr6: types.Network6 | None = Field(
        default=None, description="IPv6 network of the zone; without it the zone has no IPv6.", examples=["fd00:1::/64"]
    )
    address6: types.Address6 | None = Field(
        default=None, description="The host's own IPv6 address in the zone.", examples=["fd00:1::1"]
    )
    sources: list[types.Network] = Field(
        default=[],
        description="Networks that packets of the zone may come from, if a router stands behind it; "
        "none means the zone's own.",
        examples=[["10.0.1.0/24", "10.9.0.0/16"]],
    )


class Flow(Section):
    """One row of the zone matrix, judged before the built-in ones. What no row allows is dropped."""

    source: str = Field(
        alias="from", description=f"Who opens the connection: a zone or {_PLACES}.", examples=["agent_internal"]
    )
    to: str = _about(f"Who is reached: a zone or {_PLACES}.", "host")
    at: str | None = Field(
        default=None, description="With `to: host`: only the host's address in this zone.", examples=["agent_internal"]
    )
    proto: Literal["any", "tcp", "udp", "icmp"] = Field(default="any", description="Protocol.", examples=["tcp"])
    ports: list[types.Ports] = Field(
        default=[], description="Destination ports, numbers or ranges; none means all.", examples=[[8443, "9000-9010"]]
    )
    from_cidrs: list[types.Network] = Field(
        default=[], description="Only from these networks; none means all of the place.", examples=[["10.0.1.16/28"]]
    )
    to_cidrs: list[types.Network] = Field(
        default=[], description="Only to these networks; none means all of the place.", examples=[["10.0.2.8/32"]]
    )
    action: Literal["allow", "deny"] = _about("What happens.", "allow")
    note: types.Note = _about("Why: 1 to 80 letters, digits, blanks and _ . , / -", "names for the agents")


class Network(Section):
    """The trunk and its zones."""

    trunk: types.Interface = _about("Network interface that carries the VLANs; not the management one.", "eno2")
    zones: list[Zone] = _about(
        "The VLANs; agent_internal and api_gateway must be among them.",
        _ZONES,
        min_length=1,
    )
    flows: list[Flow] = Field(
        default=[],
        description="Rows of the zone matrix for this site, judged before the built-in ones.",
        examples=[
            [
                {
                    "from": "agent_internal",
                    "to": "host",
                    "proto": "udp",
                    "ports": [53],
                    "action": "allow",
                    "note": "names for the agents",
                }
            ]
        ],
    )


class Updates(Section):
    """Debian's security updates."""

    automatic: bool = Field(default=True, description="Install security updates every day.", examples=[True])
    reboot_time: types.ClockTime = Field(
        default="04:00",
        description="When the host may restart after an update that needs it, HH:MM in its time zone, in quotes.",
        examples=["04:00"],
    )


class Hardening(Section):
    """Choices that hardening leaves to the owner."""

    usb_storage_allowed: bool = Field(default=False, description="Permit USB sticks and disks.", examples=[False])


class Audit(Section):
    """The kernel's audit log."""

    max_file_mib: Annotated[int, Field(ge=8, le=4096)] = Field(
        default=32, description="Size of one audit log file in MiB, 8 to 4096.", examples=[32]
    )
    keep_files: Annotated[int, Field(ge=2, le=99)] = Field(
        default=10, description="How many audit log files are kept, 2 to 99.", examples=[10]
    )


class Journal(Section):
    """The system journal."""

    max_use_mib: Annotated[int, Field(ge=64, le=65536)] = Field(
        default=1024, description="Disk space for the journal in MiB, 64 to 65536.", examples=[1024]
    )
    keep_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        default=90, description="Days after which journal files are removed, 1 to 3650.", examples=[90]
    )


class Gvisor(Section):
    """The sandbox that agents run in."""

    source: Literal["debian", "lock"] = Field(
        default="lock",
        description="Where runsc comes from: artifacts.lock.yml, or Debian's package (profile lab only).",
        examples=["lock"],
    )


class Hardware(Section):
    """What is known of the machine before it is reached; preflight measures it."""

    memory_gib: Annotated[int, Field(ge=1, le=65536)] | None = Field(
        default=None, description="Memory of the host in GiB.", examples=[32]
    )


class Waiver(Section):
    """One check that may fail, until a date."""

    id: types.CheckId = _about("The check, as `kosmos-install checks list` names it.", "host.aide.baseline")
    reason: types.Reason = _about("Why, and what stands in for it.", "Baseline is kept by the site's own scanner")
    expires: types.Day = _about("The last day on which it holds, YYYY-MM-DD.", "2027-01-31")


class Appliance(Section):
    """One appliance: what its owner decides. Everything else has one right value, and the roles hold it."""

    api_version: Literal["kosmos/v1"] = Field(
        alias="apiVersion", description="Version of this file's form.", examples=[API_VERSION]
    )
    name: types.Name = _about("Name of the appliance, asked for by `reset --confirm`: a-z, 0-9 and -.", "kosmos-1")
    profile: Literal["appliance", "lab"] = _about("`appliance`: the real thing. `lab`: to try it out.", "appliance")
    hostname: types.HostLabel = _about(
        "Host name without domain (RFC 1123): 1 to 63 of a-z, 0-9 and -, no - at either end.", "kosmos-1"
    )
    domain: types.DomainName = _about("DNS domain of the host: labels of a-z, 0-9 and - (RFC 1123).", "kosmos.internal")
    timezone: types.TimeZone = Field(
        default="Etc/UTC", description="Time zone by its IANA name.", examples=["Europe/Zurich"]
    )
    locale: types.Locale = Field(
        default="C.UTF-8", description="System locale; UTF-8 only.", examples=["C.UTF-8", "en_GB.UTF-8"]
    )
    operator: Operator = _about("The account that the appliance never locks out.", {"user": "operator"})
    management: Management = _about(
        "How the operator reaches the host.", {"interface": "eno1", "allowed_cidrs": ["192.0.2.0/24"]}
    )
    time: Time = _about("Where the host gets the time from.", {"servers": ["ntp1.example.org"]})
    storage: Storage = _about(
        "The disks beside the system disk.", {"data_disk": "/dev/disk/by-id/nvme-eui.0025385b21404321"}
    )
    network: Network = _about("The trunk and its zones.", {"trunk": "eno2", "zones": _ZONES})
    updates: Updates = Field(default=Updates(), description="Debian's security updates.")
    hardening: Hardening = Field(default=Hardening(), description="Choices that hardening leaves to the owner.")
    audit: Audit = Field(default=Audit(), description="The kernel's audit log.")
    journal: Journal = Field(default=Journal(), description="The system journal.")
    gvisor: Gvisor = Field(default=Gvisor(), description="The sandbox that agents run in.")
    hardware: Hardware = Field(default=Hardware(), description="What is known of the machine before it is reached.")
    waivers: list[Waiver] = Field(
        default=[],
        description="Checks that may fail, each with a reason and an end.",
        examples=[[{"id": "host.aide.baseline", "reason": "Site scanner", "expires": "2027-01-31"}]],
    )


class ApplianceFile(Section):
    """The whole file: one key."""

    kosmos: Appliance = Field(description="The appliance.")


def example() -> dict[str, Any]:
    """The smallest valid `kosmos`, of the examples above, as plain data."""
    fields = Appliance.model_fields.items()
    return {field.alias or name: field.examples[0] for name, field in fields if field.is_required() and field.examples}
