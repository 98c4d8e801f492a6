"""YAML files whose values remember their lines, so that a fault can say where it is.

A file that would take long, or that no person wrote, is refused before its values are made: one
that is long, nests deep, or stands for many values through its aliases.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from study.basics.errors import ConfigError, Fault

MAX_BYTES = 256 * 1024
MAX_LINE = 64 * 1024
MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_VALUES = 10_000
"""With what aliases stand for, each time."""
_MAX_DIGITS = 64
_MAX_NUMBER = 2**63
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""No file's name and no database has these: the null character, and halves of characters."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads scalars as YAML 1.2 does, and refuses what is too deep and values that
    nothing can hold, with their line."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise _limit("YAML", self.peek_event().start_mark, f"{MAX_ALIASES} aliases (`*`)")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise _limit("YAML", mark, f"{MAX_DEPTH} levels of nesting")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        whole = node.tag == "tag:yaml.org,2002:int"
        if whole and len(node.value) > _MAX_DIGITS:
            raise ConstructorError(None, None, "the number is too large", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, OverflowError, AttributeError, TypeError, LookupError) as error:
            # What looks like a date, a number or a set but is none, e.g. 2024-13-45.
            problem = f"{node.value!r} cannot be read ({error})"
            raise ConstructorError(None, None, problem, node.start_mark) from None
        if whole and abs(value) >= _MAX_NUMBER:
            raise ConstructorError(None, None, "the number is too large", node.start_mark)
        if isinstance(value, str) and (found := _NOT_TEXT.search(value)):
            problem = f"the character {found[0]!a} cannot be in a text"
            raise ConstructorError(None, None, problem, node.start_mark)
        return value


class _LimitError(Exception):
    """More than a person writes, or an alias inside the value that it stands for: no end."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts a text in quotes which `_Loader` would read as something else; it does
    already for those of YAML 1.1."""


# YAML 1.2's core schema. PyYAML's own is that of 1.1, in which 1:30 is 90, 020 is 16, `no` is false
# and 1e-5 is a text.
_SCALARS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)"
        r"|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), _first
        )


def _whole(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if re.match(r"[-+]?0[0-9]", text):
        # 20 to YAML 1.2, 16 to 1.1, and no number at all to many a reader.
        problem = f"{text} has a leading zero, which YAML's versions read differently"
        raise ConstructorError(None, None, problem, node.start_mark)
    return int(text, 0)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole)


@dataclass(frozen=True)
class YamlSource:
    """What a YAML text says, and where.

    Attributes:
        name: the file's name for messages.
        data: the plain Python value, as ``yaml.safe_load`` would give it.
        lines: 1-based line by dotted path (list items by index, ``data.train.0``).
        faults: keys written twice; the later one is in `data`.
    """

    name: str
    data: Any
    lines: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    def line(self, path: str) -> int | None:
        """Line of `path` or, when it is not in the file, of its nearest enclosing section."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition(".")[0]
        return None

    def value(self, path: str) -> Any:
        """The value written at `path`; None when there is none or it is a section."""
        found = self.data
        for key in path.split("."):
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, Mapping) and key in found:
                found = found[key]
            else:
                return None
        return None if isinstance(found, Mapping) else found

    def locate(self, faults: Iterable[Fault]) -> list[Fault]:
        """`faults` with the line and the value as written, where they have none yet."""
        return [
            dataclasses.replace(
                fault,
                line=self.line(fault.path) if fault.line is None else fault.line,
                value=self.value(fault.path) if fault.value is None else fault.value,
            )
            for fault in faults
        ]


def read_yaml(path: Path) -> YamlSource:
    """Read a YAML file.

    Raises:
        ConfigError: see `read_text`; or it is not YAML.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """The text of a file that a person wrote, byte for byte: a byte order mark stays.

    Raises:
        ConfigError: the file is missing, unreadable, too long or not UTF-8.
    """
    remedy = "Check the path; `study init` writes a starting study file."
    try:
        content = _read(path)
        if len(content) > MAX_BYTES:
            rule = f"longer than {MAX_BYTES // 1024} KiB."
            raise _file_error(path, rule, "Is it the right file?")
        return content.decode()
    except FileNotFoundError:
        raise _file_error(path, "there is no such file.", remedy) from None
    except IsADirectoryError:
        raise _file_error(path, "this is a folder, not a YAML file.", remedy) from None
    except UnicodeDecodeError as error:
        rule = f"the file is not UTF-8 text (byte {error.start})."
        raise _file_error(path, rule, "Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise _file_error(path, f"cannot be read: {error}.", remedy) from None


def parse_yaml(text: str, name: str) -> YamlSource:
    """Parse one YAML document; `name` is the source in messages.

    Raises:
        ConfigError: not YAML, with the line of the first mistake.
    """
    _refuse_long(text, name)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        rule = f"the character {chr(error.character)!a} cannot be in a YAML file."
        remedy = "Remove it, or write it as an escape between double quotes."
        raise ConfigError(name, [Fault("YAML", line, None, rule, remedy)]) from None
    data, lines, duplicates = None, dict[str, int](), list[Fault]()
    try:
        node = loader.get_single_node()
        if node is not None:
            _walk(node, "", lines, duplicates, {})
            data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(name, [_syntax_fault(error)]) from None
    except _LimitError as error:
        raise ConfigError(name, [error.fault]) from None
    finally:
        loader.dispose()
    return YamlSource(name, data, lines, tuple(duplicates))


def _read(path: Path) -> bytes:
    """The file's bytes, one more than it may have at most. A pipe or device is not waited for."""
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _refuse_long(text: str, name: str) -> None:
    if len(text) > MAX_BYTES:
        rule, remedy = f"longer than {MAX_BYTES:,} characters.", "Is it the right file?"
        raise ConfigError(name, [Fault("YAML", None, None, rule, remedy)])
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE:
            rule, remedy = f"the line has more than {MAX_LINE:,} characters.", "Break it."
            raise ConfigError(name, [Fault("YAML", number, None, rule, remedy)])


def dump_yaml(data: Any) -> str:
    """Plain values as YAML that `read_yaml` reads back as they were."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


def did_you_mean(word: str, options: Iterable[str]) -> str | None:
    """The option nearest to `word`, or None when none is near."""
    options = list(options)
    near = difflib.get_close_matches(word.lower(), options, n=1, cutoff=0.6)
    return near[0] if near else None


def suggestion(word: str, options: Iterable[str]) -> str:
    """A remedy for an unknown word: the nearest option, then all of them."""
    options = list(options)
    near = did_you_mean(word, options)
    valid = f"Valid: {', '.join(options)}." if options else "Nothing can be set here."
    return f"Did you mean `{near}`? {valid}" if near else valid


def _walk(
    node: yaml.Node,
    path: str,
    lines: dict[str, int],
    faults: list[Fault],
    known: dict[int, tuple[int, int] | None],
) -> tuple[int, int]:
    """Fill `lines` and `faults`; an alias is walked once, where its value is written.

    Args:
        known: what was returned for nodes already, None for those that are being walked.

    Returns:
        Values and levels that the node stands for, those of its aliases counted each time.

    Raises:
        _LimitError: too many of them, or an alias inside the value that it stands for.
    """
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            rule = "the value contains itself."
            raise _LimitError(Fault(path, lines[path], None, rule, "Remove the alias (`*`)."))
        return found
    known[id(node)] = None
    values, levels = 1, 1
    for child, place in _children(node, path, lines, faults):
        inner = _walk(child, place, lines, faults, known)
        values, levels = values + inner[0], max(levels, 1 + inner[1])
    for count, most, noun in (
        (values, MAX_VALUES, "values"),
        (levels, MAX_DEPTH, "levels of nesting"),
    ):
        if count > most:
            raise _limit(path or "YAML", node.start_mark, f"{most:,} {noun}")
    known[id(node)] = values, levels
    return values, levels


def _children(
    node: yaml.Node, path: str, lines: dict[str, int], faults: list[Fault]
) -> Iterator[tuple[yaml.Node, str]]:
    """The nodes inside one, with their paths."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            place = _join(path, str(index))
            lines[place] = item.start_mark.line + 1
            yield item, place
    elif isinstance(node, yaml.MappingNode):
        written: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            line, place = key.start_mark.line + 1, _join(path, name)
            if name in written:
                rule = f"the key is written twice; it is already in line {written[name]}."
                faults.append(Fault(place, line, None, rule, "Keep one of them."))
            written[name] = line
            lines[place] = line
            yield key, place
            yield value, place


def _limit(path: str, mark: yaml.Mark, most: str) -> _LimitError:
    return _LimitError(Fault(path, mark.line + 1, None, f"more than {most}.", "Write it shorter."))


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    problem = error.problem or error.context or "syntax error"
    remedy = "Check indentation, colons, brackets and quotes around this line."
    if "cannot be in a text" in problem:
        remedy = "Remove it."
    elif isinstance(error, ConstructorError) and ("tag" not in problem or ":value" in problem):
        remedy = "Correct it, or put it in quotes if it is text."
    elif "\\t" in problem:
        remedy = "Indent with spaces, not tabs."
    elif "single document" in str(error):
        remedy = "Keep one document: remove the second `---` and what follows."
    elif "tag" in problem:
        remedy = "Remove the `!` tag; plain values only."
    elif "%" in problem or "cannot start any token" in problem or "alias" in problem:
        remedy = "Put the value in quotes."
    return Fault("YAML", line, None, f"not valid YAML: {problem}.", remedy)


def _file_error(path: Path, rule: str, remedy: str) -> ConfigError:
    return ConfigError(str(path), [Fault(str(path), None, None, rule, remedy)])
