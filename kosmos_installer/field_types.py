"""The kinds of values in the appliance file: each with its form, so that the JSON schema carries it too."""

from __future__ import annotations

from datetime import date, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network
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
        raise ValueError("Zones are IPv4; IPv6 is dropped between them.")
    return network


def _address4(value: Any) -> IPv4Address:
    if isinstance(value, IPv4Address):
        return value
    try:
        address = ip_address(_text(value))
    except ValueError:
        raise ValueError("This is no IP address.") from None
    if not isinstance(address, IPv4Address):
        raise ValueError("Zones are IPv4; IPv6 is dropped between them.")
    return address


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
CheckId: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+){2,}$")]
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
