"""YAML files whose values remember their lines, so that a fault can say where it is."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from study.errors import ConfigError, Fault


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads ``5e-5`` as a number, as YAML 1.2 and every other language do."""


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts a text in quotes which `_Loader` would read as a number."""


# YAML 1.1 wants a dot in the mantissa and a sign in the exponent; without either, a learning
# rate would silently become text.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


class _CyclicValueError(Exception):
    """An alias inside the value that it stands for: such data has no end."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault)


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
        ConfigError: the file is missing, unreadable, not UTF-8 or not YAML.
    """
    remedy = "Check the path; `study init` writes a starting study file."
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _file_error(path, "there is no such file.", remedy) from None
    except IsADirectoryError:
        raise _file_error(path, "this is a folder, not a YAML file.", remedy) from None
    except UnicodeDecodeError as error:
        rule = f"the file is not UTF-8 text (byte {error.start})."
        raise _file_error(path, rule, "Save it as UTF-8.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        raise _file_error(path, f"cannot be read: {error}.", remedy) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> YamlSource:
    """Parse one YAML document; `name` is the source in messages.

    Raises:
        ConfigError: not YAML, with the line of the first mistake.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(name, [_syntax_fault(error)]) from None
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: a value that looks like a date or a number but is none, e.g. 2024-13-45.
        fault = Fault("YAML", None, None, f"not readable as YAML: {error}.", "Quote the value.")
        raise ConfigError(name, [fault]) from None
    finally:
        loader.dispose()
    lines: dict[str, int] = {}
    duplicates: list[Fault] = []
    if node is not None:
        try:
            _walk(node, "", lines, duplicates, set())
        except _CyclicValueError as error:
            raise ConfigError(name, [error.fault]) from None
    return YamlSource(name, data, lines, tuple(duplicates))


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
    done: set[int],
    above: tuple[int, ...] = (),
) -> None:
    """Fill `lines` and `faults`; an alias is walked once, where its value is written."""
    if id(node) in above:
        rule = "the value contains itself."
        raise _CyclicValueError(Fault(path, lines[path], None, rule, "Remove the alias (`*`)."))
    if id(node) in done:
        return
    done.add(id(node))
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            child = _join(path, str(index))
            lines[child] = item.start_mark.line + 1
            _walk(item, child, lines, faults, done, above)
    elif isinstance(node, yaml.MappingNode):
        written: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            child = _join(path, name)
            if name in written:
                rule = f"the key is written twice; it is already in line {written[name]}."
                faults.append(Fault(child, line, None, rule, "Keep one of them."))
            written[name] = line
            lines[child] = line
            _walk(value, child, lines, faults, done, above)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _syntax_fault(error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line = None if mark is None else mark.line + 1
    problem = error.problem or error.context or "syntax error"
    remedy = "Check indentation, colons, brackets and quotes around this line."
    if "\\t" in problem:
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
