"""The kinds of values in the appliance file: each with its form, so that the JSON schema carries it too."""

from __future__ import annotations

from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, StringConstraints, WithJsonSchema

_LABEL_FORM = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("It must be text.")
    return value


def _network(value: Any) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    text = _text(value)
    if "/" not in text:
        raise ValueError("The prefix length is missing, such as /24.")
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("This is no network in CIDR form.") from None
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"This is an address inside a network; the network is {loose}.") from None


def _network4(value: Any) -> IPv4Network:
    network = _network(value)
    if not isinstance(network, IPv4Network):
        raise ValueError("An IPv4 network is needed here; IPv6 goes into cidr6.")
    return network


def _network6(value: Any) -> IPv6Network:
    network = _network(value)
    if not isinstance(network, IPv6Network):
        raise ValueError("An IPv6 network is needed here; IPv4 goes into cidr.")
    return network


def _address(value: Any) -> IPv4Address | IPv6Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    try:
        return ip_address(_text(value))
    except ValueError:
        raise ValueError("This is no IP address.") from None


def _address4(value: Any) -> IPv4Address:
    address = _address(value)
    if not isinstance(address, IPv4Address):
        raise ValueError("An IPv4 address is needed here; IPv6 goes into address6.")
    return address


def _address6(value: Any) -> IPv6Address:
    address = _address(value)
    if not isinstance(address, IPv6Address):
        raise ValueError("An IPv6 address is needed here; IPv4 goes into address.")
    return address


def _ports(value: Any) -> int | str:
    low, _, high = str(value).partition("-")
    numbers = [int(part) for part in (low, high or low) if part.isdigit()]
    if isinstance(value, bool) or len(numbers) != 2 or not 1 <= numbers[0] <= numbers[1] <= 65535:
        raise ValueError("This is neither a port, 1 to 65535, nor a range of ports.")
    return value if isinstance(value, int) else str(value)


def _day(value: Any) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        return date.fromisoformat(_text(value))
    except ValueError:
        raise ValueError("This is no date of the form YYYY-MM-DD.") from None


def _not_only_digits(value: str) -> str:
    if value.replace(".", "").isdigit():
        raise ValueError("A name of digits only would be taken for an address.")
    return value


def _total_length(value: str) -> str:
    if len(value) > 188:
        raise ValueError("It is too long: host name and domain together may have 253 characters (RFC 1035).")
    return value


Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
HostLabel: TypeAlias = Annotated[str, StringConstraints(pattern=rf"^{_LABEL_FORM}$"), AfterValidator(_not_only_digits)]
DomainName: TypeAlias = Annotated[
    str, StringConstraints(pattern=rf"^{_LABEL_FORM}(\.{_LABEL_FORM})*$"), AfterValidator(_total_length)
]
ServerName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?$")]
TimeZone: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]+(/[A-Za-z0-9_+-]+)*$")]
Locale: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(C|[a-z]{2,3}_[A-Z]{2})\.UTF-8$")]
UserName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
Interface: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,14}$")]
DiskPath: TypeAlias = Annotated[str, StringConstraints(pattern=r"^/dev/disk/by-(id|path)/[A-Za-z0-9_.:+@-]+$")]
ZoneName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
ClockTime: TypeAlias = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
CheckId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9_-]*){2,}$")]
Reason: TypeAlias = Annotated[str, StringConstraints(pattern=r"\S", max_length=500)]

Day: TypeAlias = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Network: TypeAlias = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9a-fA-F.:]+/[0-9]{1,3}$"}),
]
Network4: TypeAlias = Annotated[
    IPv4Network,
    BeforeValidator(_network4),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}$"}),
]
Address4: TypeAlias = Annotated[
    IPv4Address, BeforeValidator(_address4), WithJsonSchema({"type": "string", "format": "ipv4"})
]
Network6: TypeAlias = Annotated[
    IPv6Network,
    BeforeValidator(_network6),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9a-fA-F:.]*:[0-9a-fA-F:.]*/[0-9]{1,3}$"}),
]
Address6: TypeAlias = Annotated[
    IPv6Address, BeforeValidator(_address6), WithJsonSchema({"type": "string", "format": "ipv6"})
]
Ports: TypeAlias = Annotated[
    int | str,
    BeforeValidator(_ports),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"},
            ]
        }
    ),
]
#: Becomes a comment in the packet filter, so it may hold nothing that nftables would read.
Note: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ .,/-]{1,80}$")]
