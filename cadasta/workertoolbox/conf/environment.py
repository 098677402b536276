"""Settings from environment variables, parsed by the type that each setting has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ConfigError

_TRUE = frozenset({"1", "true", "yes", "on", "y", "t"})
_FALSE = frozenset({"0", "false", "no", "off", "n", "f", ""})
_NONE = frozenset({"none", "null"})


def parse(variable: str, text: str, kind: str) -> Any:
    """The value of the environment variable ``variable``.

    Args:
        variable: its name, for the error.
        text: what it holds.
        kind: the type: ``bool``, ``int``, ``float``, ``dict``, ``list``, ``tuple``, ``names``
            (JSON or comma-separated), ``any`` (JSON where it is, else text) or ``string``.

    Raises:
        ConfigError: it does not parse; names the variable and what it should hold. The text
            itself is not repeated: it may be a secret.
    """
    parser = _PARSERS.get(kind)
    if parser is None:
        return text
    if text.strip().lower() in _NONE and kind != "bool":
        return None
    try:
        return parser(text.strip())
    except (ValueError, TypeError):
        raise ConfigError(
            f"environment variable {variable}: its value is no {_WORDS[kind]}."
        ) from None


def read(
    environ: Mapping[str, str], prefix: str, kinds: Mapping[str, str], taken: Any = ()
) -> dict[str, Any]:
    """All settings of ``kinds`` (name to type) that ``environ`` holds as ``prefix`` + NAME.

    Settings named in ``taken`` are left out: an argument has given them already.
    """
    found = {}
    for name, kind in kinds.items():
        variable = prefix + name.upper()
        if name not in taken and variable in environ:
            found[name] = parse(variable, environ[variable], kind)
    return found


def _bool(text: str) -> bool:
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(word)


def _dict(text: str) -> Any:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise TypeError(type(value))
    return value


def _names(text: str) -> Any:
    if text.startswith("["):
        return json.loads(text)
    return [name.strip() for name in text.split(",") if name.strip()]


def _any(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": _bool,
    "int": int,
    "float": float,
    "dict": _dict,
    "list": _names,
    "tuple": lambda text: tuple(_names(text)),
    "names": _names,
    "any": _any,
}
_WORDS = {
    "bool": "truth value (true or false)",
    "int": "whole number",
    "float": "number",
    "dict": "JSON object",
    "list": "list (JSON or separated by commas)",
    "tuple": "list (JSON or separated by commas)",
    "names": "list of names (JSON or separated by commas)",
    "any": "value",
}
