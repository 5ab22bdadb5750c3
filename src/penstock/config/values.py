"""Parsing and checking of configuration values, with Kafka's own messages.

Pure functions on strings. A value is parsed by its type and then checked against the `allowed`
column of broker_keys and topic_keys. Messages are those of Kafka's ConfigDef, because clients and
operators read them.
"""

from __future__ import annotations

from penstock.errors import ConfigError

Value = bool | int | float | str | list[str] | None

# What the rows of all key tables begin with: type, default, allowed, flags.
KeyRow = tuple[str, "str | None", str, str, *tuple[object, ...]]

_INTEGER_BITS = {"short": 15, "int": 31, "long": 63}


def _refuse(name: str, value: object, why: str) -> ConfigError:
    return ConfigError(f"Invalid value {value} for configuration {name}: {why}")


def parse(name: str, type_: str, raw: str | None) -> Value:
    """The typed value of `raw`; None stays None. ConfigError when the text is not of that type."""
    if raw is None:
        return None
    if type_ in ("string", "class", "password"):
        return raw.strip() if type_ != "password" else raw
    text = raw.strip()
    if type_ == "boolean":
        lowered = text.lower()
        if lowered in ("true", "false"):
            return lowered == "true"
        raise _refuse(name, raw, "Expected value to be either true or false")
    if type_ == "list":
        return [] if not text else [item.strip() for item in text.split(",")]
    if type_ == "double":
        try:
            return float(text)
        except ValueError:
            raise _refuse(name, raw, "Not a number of type DOUBLE") from None
    bits = _INTEGER_BITS[type_]
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits.isascii() and digits.isdigit():
        number = int(text)
        if -(1 << bits) <= number < 1 << bits:
            return number
    raise _refuse(name, raw, f"Not a number of type {type_.upper()}")


def check(name: str, allowed: str, value: Value) -> None:
    """ConfigError unless `value` is what `allowed` says (see broker_keys for the notation)."""
    if not allowed or (value is None and allowed != "nonnull"):
        return
    kind, _, rest = allowed.partition(" ")
    if kind == "in" or kind == "iin":
        options = rest.split(",")
        text = str(value)
        if kind == "iin":
            fine = text.lower() in [option.lower() for option in options]
        else:
            fine = text in options
        if not fine:
            hint = "(case insensitive) " if kind == "iin" else ""
            raise _refuse(name, value, f"String must be one of: {hint}{', '.join(options)}")
    elif kind == "list":
        options = rest.split(",") if rest else []
        assert isinstance(value, list)
        for item in value:
            if options and item not in options:
                raise _refuse(name, item, f"String must be one of: {', '.join(options)}")
    elif kind == "nonempty":
        if not value:
            raise _refuse(name, "", "String must be non-empty")
    elif kind == "nonnull":
        if value is None:
            raise _refuse(name, "null", "entry must be non null")
    elif kind == "gzip":
        assert isinstance(value, int)
        if value != -1 and not 1 <= value <= 9:
            raise _refuse(name, value, "Value must be between 1 and 9 or equal to -1")
    elif kind == "replicas":
        _check_replicas(name, value)
    else:
        low, _, high = allowed.partition("..")
        assert isinstance(value, (int, float))
        if low and value < _number(low):
            raise _refuse(name, value, f"Value must be at least {low}")
        if high and value > _number(high):
            raise _refuse(name, value, f"Value must be no more than {high}")


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def _check_replicas(name: str, value: Value) -> None:
    assert isinstance(value, list)
    items = [item for item in value if item]
    if items == ["*"]:
        return
    for item in items:
        left, colon, right = item.partition(":")
        if not (colon and left.isdigit() and right.isdigit()):
            raise _refuse(
                name,
                f"[{', '.join(items)}]",
                f"{name} must be the literal '*' or a list of replicas in the following format: "
                "[partitionId]:[brokerId],[partitionId]:[brokerId],...",
            )


def parse_checked(name: str, row: KeyRow, raw: str | None) -> Value:
    """Parse and check in one step; `row` is a row of broker_keys or topic_keys."""
    value = parse(name, row[0], raw)
    check(name, row[2], value)
    return value


def to_text(value: Value) -> str | None:
    """As Kafka prints a value: lists by comma, booleans in lower case."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(value)
    return str(value)
