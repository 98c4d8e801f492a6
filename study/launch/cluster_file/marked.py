"""Files that are a working example as they stand, and a template at the same time.

A line that ends in ``# <-- key`` holds one value that may be replaced::

    image: registry.example.com/study:0.1.0  # <-- image
    #SBATCH --nodes=2                        # <-- nodes

A marked line that is commented out is off until it gets a value. In YAML, a marked ``|`` stands for
the whole block of text below it. Every value arrives byte for byte, whichever version of YAML its
reader speaks.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.basics.errors import UserError
from study.basics.yaml_source import suggestion

_MARK = r"(?P<value>\S.*?)(?P<gap>\s+)# <-- (?P<key>\w+)(?P<rest>.*)$"
_KEY = r"(?:\"[^\"]+\"|[\w./-]+):\s+"
_YAML_LINE = re.compile(rf"^(?P<indent>\s*)(?P<off># )?(?P<head>- {_KEY}|- |{_KEY})" + _MARK)
_SHELL_LINE = re.compile(
    r"^(?P<indent>\s*)(?P<off>#(?=#SBATCH)|# (?=\w+=))?(?P<head>#SBATCH --[\w-]+=|\w+=)" + _MARK
)
_PLAIN = re.compile(r"[A-Za-z/][\w./:-]*[\w/]|[A-Za-z]")
_YAML_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


@dataclass(frozen=True)
class Filled:
    """Attributes:
    text: the file with its values.
    left: line and key of each marked value that is still the example's.
    """

    text: str
    left: tuple[tuple[int, str], ...]


def fill(text: str, values: Mapping[str, Any], *, shell: bool) -> Filled:
    """Replace the marked values of a file.

    Args:
        text: the example.
        values: by key; None turns the key's lines off.
        shell: a shell script rather than YAML.

    Raises:
        UserError: a key that the file does not have, or a value that cannot stand in its line.
    """
    known = marked_keys(text, shell=shell)
    for key in values:
        if key not in known:
            raise UserError(f"`{key}` is no value of this file. {suggestion(key, known)}")
    lines = text.splitlines()
    filled, left = list[str](), list[tuple[int, str]]()
    at = 0
    while at < len(lines):
        line, match = lines[at], _pattern(shell).match(lines[at])
        at += 1
        if match is None:
            filled.append(line)
        elif match["key"] not in values:
            filled.append(line)
            if not match["off"]:
                left.append((len(filled), match["key"]))
        elif match["value"] == "|" and not shell:
            indent = len(match["indent"])
            while at < len(lines) and (not lines[at].strip() or _indent(lines[at]) > indent):
                at += 1
            filled += _filled_block(match, str(values[match["key"]]))
        else:
            filled.append(_filled_line(match, values[match["key"]], shell))
    return Filled("\n".join(filled) + "\n", tuple(left))


def marked_keys(text: str, *, shell: bool) -> tuple[str, ...]:
    """The keys of a file's marked values, in their order."""
    found = (_pattern(shell).match(line) for line in text.splitlines())
    return tuple(dict.fromkeys(match["key"] for match in found if match))


def _pattern(shell: bool) -> re.Pattern[str]:
    return _SHELL_LINE if shell else _YAML_LINE


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _filled_line(match: re.Match[str], value: Any, shell: bool) -> str:
    mark = f"  # <-- {match['key']}{match['rest']}"
    if value is None:
        off = "#" if match["head"].startswith("#SBATCH") else "# "
        return f"{match['indent']}{match['off'] or off}{match['head']}{match['value']}{mark}"
    if not shell:
        return f"{match['indent']}{match['head']}{_yaml_value(value)}{mark}"
    if not match["head"].startswith("#SBATCH"):
        return f"{match['indent']}{match['head']}{_shell_value(str(value))}{mark}"
    if re.search(r"[\s#'\"\\\\]", str(value)):
        raise UserError(
            f"{match['key']}: {str(value)!r} cannot stand in an #SBATCH line. Use a value without "
            "spaces, quotes and `#`."
        )
    return f"{match['head']}{value}{mark}"


def _filled_block(match: re.Match[str], text: str) -> list[str]:
    """A text for people to read, line by line, or in quotes where a reader of YAML might change a
    blank, a line's end or an invisible character."""
    *rows, last = text.split("\n")
    readable = all(row.isprintable() and not row.endswith(" ") for row in rows)
    ends_well = rows and rows[0] and rows[-1] and not last and not text.startswith(" ")
    if not readable or not ends_well:
        return [_filled_line(match, text, shell=False)]
    indent = f"{match['indent']}  "
    return [match[0], *(f"{indent}{row}" if row else "" for row in rows)]


def _yaml_value(value: Any) -> str:
    """As JSON, which is YAML; without quotes where a text is plainly a text."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _YAML_WORDS:
        return value
    # YAML 1.1 takes some of what JSON leaves as it is for line breaks, or for nothing.
    return "".join(
        c if c.isprintable() else _escaped(c) for c in json.dumps(value, ensure_ascii=False)
    )


def _escaped(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number < 2**16 else f"\\U{number:08x}"


def _shell_value(value: str) -> str:
    """Quoted, but for a leading ``~``, which is the home folder on the machine that runs it."""
    if value == "~" or value.startswith("~/"):
        return '"$HOME"' + (shlex.quote(value[1:]) if len(value) > 1 else "")
    return shlex.quote(value)
