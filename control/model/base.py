"""The base of every model, and the scalar types that resources share.

Models are frozen and strict: a port written as a string is rejected, not converted, so that what `mesh get` shows is
what was applied.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


class Model(BaseModel):
    """Fields are snake_case here and camelCase in YAML and JSON; unknown fields are rejected."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        validate_default=False,
    )

    def to_data(self) -> dict[str, Any]:
        """The form that users write: camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


SpecModel = type[Model]


def refuse(message: str) -> PydanticCustomError:
    """An error of ours inside pydantic; explain.py passes its text on unchanged."""
    return PydanticCustomError("mesh", "{reason}", {"reason": message})


def shown(value: object) -> str:
    """A user's value for a message, cut to one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- durations --------------------------------------------------------------------------------------------------------

_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}
_TERM = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|h|m|s)")
_DURATION = re.compile(rf"(?:{_TERM.pattern})+")


def parse_duration(value: object) -> timedelta:
    """ "1m30s" -> timedelta; the syntax of Go durations down to microseconds."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and value == "0":
        return timedelta(0)
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise refuse(f"must be a duration: a number with a unit out of h, m, s, ms, us; got {shown(value)}")
    microseconds = sum(Decimal(number) * _UNITS[unit] for number, unit in _TERM.findall(value))
    if microseconds > 365 * 24 * 3_600_000_000:
        raise refuse(f"must be at most 8760h; got {shown(value)}")
    return timedelta(microseconds=int(microseconds))


def format_duration(value: timedelta) -> str:
    """timedelta(seconds=90) -> "1m30s"; the inverse of parse_duration."""
    left = value // timedelta(microseconds=1)
    text = ""
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration),
    Field(examples=["10s"], strict=False),
    WithJsonSchema({"type": "string", "pattern": r"^(0|([0-9]+(\.[0-9]+)?(ms|us|h|m|s))+)$", "examples": ["10s"]}),
]


# --- numbers ----------------------------------------------------------------------------------------------------------


# Decimals are written as strings ("0.5"), because YAML floats do not survive a round trip.
_DECIMAL = r"[0-9]{1,9}(\.[0-9]{1,9})?"


def _decimal(value: object) -> Decimal | None:
    """Parses a whole number or a short string, but nothing that would become long when written out."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(_DECIMAL, str(value)):
        return None
    return Decimal(value)


def parse_percentage(value: object) -> Decimal:
    number = _decimal(value)
    if number is None or number > 100:
        raise refuse(f"must be a whole number from 0 to 100, or a decimal as a string; got {shown(value)}")
    return number


def format_number(value: Decimal) -> int | str:
    return int(value) if value == value.to_integral_value() else format(value.normalize(), "f")


Percentage = Annotated[
    Decimal,
    BeforeValidator(parse_percentage),
    PlainSerializer(format_number),
    Field(examples=[50], strict=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 100},
                {"type": "string", "pattern": r"^(100(\.0{1,9})?|[0-9]{1,2}(\.[0-9]{1,9})?)$"},
            ]
        }
    ),
]


def parse_decimal(value: object) -> Decimal:
    number = _decimal(value)
    if number is None:
        raise refuse(
            f"must be a number from 0 to 999999999, decimals as a string with at most 9 digits; got {shown(value)}"
        )
    return number


PositiveDecimal = Annotated[
    Decimal,
    BeforeValidator(parse_decimal),
    PlainSerializer(format_number),
    Field(examples=["1.5"], strict=False),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 999_999_999},
                {"type": "string", "pattern": f"^{_DECIMAL}$"},
            ]
        }
    ),
]

Port = Annotated[int, Field(ge=1, le=65535, examples=[8080])]


# --- names and labels -------------------------------------------------------------------------------------------------

RFC1035_LABEL = r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
RFC1123_SUBDOMAIN = r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"
_LABEL = re.compile(RFC1035_LABEL)
_SUBDOMAIN = re.compile(RFC1123_SUBDOMAIN)
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.:-]{0,61}[A-Za-z0-9])?)?")

RFC1035_RULE = (
    "must be an RFC 1035 label: at most 63 lower-case letters, digits and '-', "
    "beginning with a letter and ending with a letter or digit"
)
RFC1123_RULE = (
    "must be an RFC 1123 subdomain: at most 253 lower-case letters, digits, '-' and '.', "
    "beginning and ending with a letter or digit"
)


def is_rfc1035_label(name: str) -> bool:
    return _LABEL.fullmatch(name) is not None


def is_rfc1123_subdomain(name: str) -> bool:
    return _SUBDOMAIN.fullmatch(name) is not None and ".." not in name


def _label_key(value: object) -> str:
    if not isinstance(value, str) or not _LABEL_KEY.fullmatch(value):
        raise refuse(f"is not a label name: [prefix/]name with letters, digits, '-', '_', '.'; got {shown(value)}")
    return value


def _label_value(value: object) -> str:
    if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
        raise refuse(
            f"is not a label value: a string of at most 63 letters, digits, '-', '_', '.', ':'; got {shown(value)}"
            + ("; quote numbers and booleans" if isinstance(value, int | float) else "")
        )
    return value


def labels_schema() -> dict[str, Any]:
    """The JSON schema of labels."""
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{_LABEL_KEY.pattern}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{_LABEL_VALUE.pattern}$"},
        "examples": [{"app": "cart"}],
    }


Labels = Annotated[
    dict[Annotated[str, BeforeValidator(_label_key)], Annotated[str, BeforeValidator(_label_value)]],
    Field(examples=[{"app": "cart"}]),
    WithJsonSchema(labels_schema()),
]

NonEmpty = Annotated[str, StringConstraints(min_length=1, max_length=4096)]

# --- addresses --------------------------------------------------------------------------------------------------------

_HOST_PART = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"(?=.{{1,253}}$){_HOST_PART}(\.{_HOST_PART})*")


def is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_hostname(text: str) -> bool:
    """Whether it is a domain name; four numbers are a mistyped address, not a name."""
    return _HOSTNAME.fullmatch(text) is not None and not re.fullmatch(r"[0-9.]+", text)
