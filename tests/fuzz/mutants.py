"""Good files, spoilt: by bytes, by tokens and by structure, the same for the same seed."""

from __future__ import annotations

import copy
import gzip
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import yaml

BYTES = [
    b"\0", b"\x07", b"\x1b[31m", b"\x7f", b"\x85", b"\xa0", b"\xff", b"\xfe", b"\xef\xbb\xbf",
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xe2\x80\xae", b"\xf0\x9f\x98\x80", b"\xc3", b"\r",
    b"\r\n", b"\t", b"\n", b"\n\n", b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b":", b": ", b"- ",
    b"#", b",", b"&a ", b"*a", b"%", b"!", b"|", b">", b"?", b"---\n", b"...\n", b"=", b"@", b"`",
    b"<<: ",
]  # fmt: skip
SCALARS = [
    "0", "-1", "1", "2", "1.5", "-0.0", "1e308", "-1e308", "1e400", "1e-320", "5e-324", ".nan",
    ".inf", "-.inf", "1e999", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "1" + "0" * 40, "1" + "0" * 5000, "0x" + "f" * 40, "0x" + "f" * 5000, "0o17", "017", "0b101",
    "1_000", "1:30", "1:" * 500 + "1", "true", "no", "on", "null", "~", "''", '""', "=", "<<",
    "2024-01-01", "2024-13-45", "0000-00-00", "2024-01-01T25:61:61Z",
    "9999-12-31 23:59:59.9 +99:99", "!!binary aGk=", "!!binary '*'", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "!!int x", "!!float x", "!!bool x", "!!timestamp x",
    "!!null x", "!!str 1", "!!map x", "!!seq x", "!!python/object:os.system x", "!mine x",
    "&a [*a]", "*a", "*missing", "&a x", "[]", "{}", "[[]]", "[null]", "{null: null}", "{[a]: b}",
    "{{a: b}: c}", "{1: 2}", "{2024-01-01: x}", "{.nan: 1}", "[1, [2, [3]]]", "[a, b, a]",
    "[-1, 0, 1]", '"a\\0b"', '"\\ud800"', '"\\x1b]0;x\\a"', '"\\u202e"', '"\\u2028"', "{a}",
    '"{a"', '"{}"', '"{0}"', '"{a.b}"', '"{a[0]}"', '"{a!r}"', '"{a:>9}"', '"{question}{answer}"',
    ".", "..", "./", "~", "~nobody/x", "$HOME", "/dev/null", "/dev/zero", "/proc/self/environ",
    "/etc/passwd", "*", "**", "[", "[a", "?", "./*.jsonl", "./train.jsonl", "./train.csv",
    "./model", "./model/config.json", "./space.yaml", "./study.yaml", "imdb", "a/b", "a/b/c",
    "http://x", "s3://", "s3://b/k", "s3://u:p@b/k", "file:///tmp", "zip://x", "://", "a" * 300,
    "a" * 5000, "ä" * 200, "sqlite:///x.db", "sqlite://", "postgresql://", "mysql://a:b@c/d",
    "postgresql://u:p@h:99999/d", "general", "auto", "none", "head", "last_0_blocks",
    "last_" + "9" * 5000 + "_blocks", "'2, " + "9" * 5000 + "'", "full", "lift", "[lift]",
    "default", "wide", "lift-structure", "{shared: {}}", "{shared: {learning_rate: 1e-3}}",
    "{low: 1, high: 2}", "{low: 1e-320, high: 1e308, log: true}",
    "{low: 0, high: 1, step: 5e-324}", "{choices: []}", "{choices: [1, 1]}", "{choices: [[1]]}",
    "{choices: {a: 1}}", "{low: null}", "{low: .nan, high: 1}",
    "{low: 1, high: 9223372036854775807, type: int}", "{low: 1, high: 3, step: 1e300}",
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**53, 2**63 - 1, 2**63, 10**30, 0.5, 1.0, -0.5,
    1e-9, 1e300, float("nan"), float("inf"), "", "x", "1", "é", "a b", "a\nb", "\t", "'",
    "x" * 1000, [], {}, [1], ["x"], [None], [[]], [{}], {"a": 1}, {"a": {"b": {}}}, {1: 2},
    {None: None}, {"": ""}, list(range(50)), {str(i): i for i in range(50)}, [1, "x", None, 2.5],
    b"bytes",
]  # fmt: skip

Mutate = Callable[[random.Random, bytes], bytes]


def spoilt_bytes(rng: random.Random, text: bytes) -> bytes:
    """A few bytes changed, put in, taken out or moved."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((1, 1, 2, 5, 20, 200)))
        match rng.randrange(6):
            case 0:
                text = text[:at] + rng.choice(BYTES) + text[at:]
            case 1:
                text = text[:at] + rng.choice(BYTES) + text[end:]
            case 2:
                text = text[:at] + text[end:]
            case 3:
                text = text[:at] + text[at:end] * rng.choice((2, 3, 50)) + text[end:]
            case 4:
                text = text[:at] + bytes([rng.randrange(256)]) + text[end:]
            case 5:
                text = text[:at] if rng.random() < 0.2 else text + text[at:end]
    return text


def spoilt_lines(rng: random.Random, text: bytes) -> bytes:
    """Lines lost, doubled, swapped, indented otherwise, repeated many times."""
    lines = text.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                lines[at : at + 1] = []
                lines = lines or [b""]
            case 1:
                lines.insert(other, lines[at])
            case 2:
                lines[at], lines[other] = lines[other], lines[at]
            case 3:
                lines[at] = b" " * rng.randrange(9) + lines[at].lstrip()
            case 4:
                lines[at] = b"\t" + lines[at]
            case 5:
                lines[at:at] = [lines[at]] * rng.choice((10, 3000))
    return b"\n".join(lines)


def spoilt_scalar(rng: random.Random, text: bytes) -> bytes:
    """What stands behind a key's colon, or in a list, is another scalar."""
    lines = text.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [i for i, line in enumerate(lines) if b":" in line or b"- " in line]
        if not places:
            break
        at = rng.choice(places)
        head, mark, _ = lines[at].partition(b":" if b":" in lines[at] else b"- ")
        lines[at] = head + mark + b" " + rng.choice(SCALARS).encode()
    return b"\n".join(lines)


def nested(rng: random.Random, text: bytes) -> bytes:
    """Far too deep, too long, or too many aliases, at some place."""
    depth = rng.choice((5, 40, 1000, 20_000))
    bomb = "{a0: &a0 [x, x]"
    for i in range(1, rng.choice((5, 30))):
        bomb += f", a{i}: &a{i} [*a{i - 1}, *a{i - 1}]"
    what = rng.choice(
        (
            b"[" * depth + b"]" * depth,
            b"{a: " * depth + b"}" * depth,
            b"- " * depth,
            b"[" * depth,
            b"!!set {" * min(depth, 1000),
            bomb.encode() + b"}",
            b"[" + b"x, " * depth + b"]",
            b'"' + b"x" * depth * 10 + b'"',
            b"\n" * depth,
            b"? " * depth,
        )
    )
    lines = text.split(b"\n")
    at = rng.randrange(len(lines))
    head, mark, _ = lines[at].partition(b":")
    lines[at] = head + (mark or b":") + b" " + what
    return b"\n".join(lines)


def spoilt_structure(rng: random.Random, text: bytes) -> bytes:
    """Values of other types, keys lost, moved, renamed, put in; still YAML."""
    data = yaml.safe_load(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        owner, key = rng.choice(_places(data))
        match rng.randrange(6):
            case 0 | 1:
                owner[key] = copy.deepcopy(rng.choice(VALUES))
            case 2:
                del owner[key]
            case 3:
                owner[key] = [owner[key]] if rng.random() < 0.5 else {"x": owner[key]}
            case 4:
                other, name = rng.choice(_places(data))
                owner[key] = copy.deepcopy(other[name])
            case 5 if isinstance(owner, dict):
                name = rng.choice((*_KEYS, f"{key}s", f"{key}"[:-1], 1, True, None, ""))
                owner[name] = copy.deepcopy(rng.choice(VALUES))
        if not _places(data):
            break
    try:
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=rng.random() < 0.5).encode()
    except (yaml.YAMLError, UnicodeEncodeError):
        return b""


def other_values(rng: random.Random, text: bytes) -> bytes:
    """Numbers and words that may well be right where they stand, so that what comes after the
    reading of the file is met too."""
    data = yaml.safe_load(text)
    for owner, key in rng.sample(_places(data), min(len(_places(data)), rng.choice((1, 2, 5)))):
        value = owner[key]
        if isinstance(value, bool):
            owner[key] = not value
        elif isinstance(value, int):
            owner[key] = rng.choice((0, 1, 2, 3, 5, 8, 16, 48, 64, 1000, 10**6, 10**9, 2**62))
        elif isinstance(value, float):
            owner[key] = rng.choice((0.0, 1e-300, 1e-9, 0.1, 0.5, 0.999, 1.0, 7.5, 1e9, 1e300))
        elif isinstance(value, str):
            owner[key] = rng.choice((*_WORDS, value))
    return yaml.safe_dump(data, sort_keys=False).encode()


_WORDS = (
    "causal-lm", "sequence-classification", "tokens", "updates_per_parameter", "device_seconds",
    "sobol", "tpe", "random", "asha", "median", "none", "constant", "linear", "bottom-up", "sgd",
    "./train.jsonl", "./train.csv", "./train.parquet", "text", "kind", "question", "answer",
    "{question}", "{answer}", "{question} {question}", "{{}}{answer}", "wide", "lift-structure",
    "./space.yaml", "eager", "fp32", "bf16", "cpu", "a", "H100",
)  # fmt: skip
_KEYS = (
    "name", "seed", "model", "path", "data", "train", "text", "prompt", "response", "label",
    "arms", "search", "space", "overrides", "shared", "lift", "trials", "training", "epochs",
    "steps", "zero", "resources", "budget", "storage", "results", "decision", "tracking", "groups",
    "learning_rate",
)  # fmt: skip
STUDY_FILES: Sequence[Mutate] = (
    spoilt_bytes, spoilt_lines, spoilt_scalar, spoilt_scalar, spoilt_structure, spoilt_structure,
    other_values, other_values, nested,
)  # fmt: skip


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Every (dict or list, key or index) of a tree."""
    if not isinstance(data, dict | list):
        return []
    keys = list(data) if isinstance(data, dict) else list(range(len(data)))
    found = [(data, key) for key in keys]
    return found + [place for key in keys for place in _places(data[key])]


def spoilt_fields(rng: random.Random, text: bytes) -> bytes:
    """Values, separators and quotes of a data file replaced by others."""
    lines = text.split(b"\n")
    for _ in range(rng.choice((1, 1, 3, 20))):
        at = rng.randrange(len(lines))
        pieces = re.split(rb"([,:\t\"\[\]{}])", lines[at])
        pieces[rng.randrange(len(pieces))] = rng.choice(FIELDS)
        lines[at] = b"".join(pieces)
    return b"\n".join(lines)


FIELDS = [
    b"", b"null", b"NaN", b"Infinity", b"-Infinity", b"true", b"1", b"-1", b"1.5", b"1e999",
    b"1e-999", b"9" * 30, b"9" * 5000, b"0x1f", b"007", b'"', b'""', b"'", b'"\\u0000"',
    b'"\\ud800"', b'"\\', b"\\N", b"{}", b"[]", b"[1]", b'{"a": 1}', b'{"a": {"b": [null]}}',
    b"[" * 59, b"[" * 100 + b"]" * 100, b"[" * 30_000 + b"]" * 30_000, b'{"a":' * 30_000,
    b"2024-01-01", b'"2024-01-01T00:00:00Z"', b"\0", b"\x1b[31m", b"\xff", b"\xe2\x80\xa8",
    b"\xe2\x80\xae", b"a" * 200_000, b" " * 1000, b"NA", b"=1+1", b"\r", b"\t", b",", b";", b"|",
    b"\n\n",
]  # fmt: skip
DATA_FILES: Sequence[Mutate] = (
    spoilt_bytes,
    spoilt_bytes,
    spoilt_lines,
    spoilt_fields,
    spoilt_fields,
)


def spoilt_packed(rng: random.Random, content: bytes) -> bytes:
    """What a gzip file holds, whole again, or the file itself."""
    if rng.random() < 0.5:
        return spoilt_bytes(rng, content)
    return gzip.compress(rng.choice(DATA_FILES)(rng, gzip.decompress(content)), mtime=0)


def ways_for(file: str) -> Sequence[Mutate]:
    """How to spoil a data file of this name."""
    if file.endswith(".gz"):
        return (spoilt_packed,)
    return (spoilt_bytes,) if file.endswith(".parquet") else DATA_FILES


def spoilt(rng: random.Random, text: bytes, ways: Sequence[Mutate] = STUDY_FILES) -> bytes:
    """`text` spoilt in one way, sometimes in two."""
    first = rng.choice(ways)(rng, text)
    return spoilt_bytes(rng, first) if rng.random() < 0.1 else first
