"""Text for the embedded offline example.

Nothing is downloaded and no third-party text is shipped: the *general* text is the Python
standard library's own source, the *task* (write a function's body, given its signature and
summary) is made from functions of sympy, which torch depends on. Both are read from the running
machine, so their contents follow the installed versions.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import hashlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import random
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypedDict

from study.basics.errors import UserError

Split = Literal["train", "held-out"]

TASK_FILE = "task.jsonl"
GENERAL_FILE = "general.jsonl"
STAMP_FILE = "made_from.json"

# Raised whenever this module would write different files from the same installed packages.
RECIPE_VERSION = 1

HELD_OUT_PERCENT = 10
GENERAL_CHUNKS = 300
CHUNKS_PER_MODULE = 15
CHUNK_CHARACTERS = 600

# Tests are mostly fixtures; encodings and pydoc_data are generated tables, not written code.
SKIPPED_STDLIB_FOLDERS = frozenset(
    {"site-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
)
MINIMUM_MODULE_CHARACTERS = 400

# A fixed part of sympy, so that parsing stays within a few seconds on two cores.
SYMPY_SUBPACKAGES = (
    "algebras", "calculus", "categories", "codegen", "combinatorics", "concrete", "core",
    "crypto", "diffgeom", "discrete", "functions", "geometry", "integrals", "liealgebras",
    "logic", "matrices", "ntheory", "parsing", "physics", "polys", "printing", "series", "sets",
    "simplify", "solvers", "stats", "strategies", "tensor", "utilities", "vector",
)  # fmt: skip
# Modules larger than this are mostly tables and take longest to parse.
MAXIMUM_SYMPY_BYTES = 90_000
BODY_CHARACTERS = (30, 350)
MAXIMUM_SUMMARY_CHARACTERS = 200
MAXIMUM_SIGNATURE_CHARACTERS = 160
SHUFFLE_SEED = 0


class TaskExample(TypedDict):
    """One fine-tuning example: complete `prompt` with `response`."""

    prompt: str
    response: str
    source: str


# --- general text: the standard library ------------------------------------------------------


def split_of(module: str) -> Split:
    """The split a standard-library module belongs to, by a hash of its relative path.

    A hash rather than a shuffle: a module keeps its split when other modules come or go, so
    what the shipped base model never saw stays held out under other Python versions too.
    """
    digest = hashlib.sha256(module.encode()).digest()
    return "held-out" if int.from_bytes(digest[:8], "big") % 100 < HELD_OUT_PERCENT else "train"


def stdlib_modules(split: Split) -> Iterator[tuple[str, str]]:
    """Yield (relative path, source) of the split's standard-library modules, sorted by path."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in _python_files(root, SKIPPED_STDLIB_FOLDERS):
        module = path.relative_to(root).as_posix()
        if split_of(module) != split:
            continue
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if len(source) >= MINIMUM_MODULE_CHARACTERS:
            yield module, source


def general_chunks() -> list[str]:
    """About 300 chunks of held-out standard-library source: the retention text of the demo."""
    ranked: list[tuple[str, str]] = []
    for module, source in stdlib_modules("held-out"):
        chunks = list(_line_chunks(source))
        # Evenly spaced through the module, so that headers and licence texts do not dominate.
        step = max(1, -(-len(chunks) // CHUNKS_PER_MODULE))
        for number, chunk in enumerate(chunks[step // 2 :: step]):
            ranked.append((_digest(f"{module}:{number}"), chunk))
    ordered = dict.fromkeys(chunk for _, chunk in sorted(ranked))
    return list(ordered)[:GENERAL_CHUNKS]


def _line_chunks(source: str) -> Iterator[str]:
    """Split source at line ends into chunks of about CHUNK_CHARACTERS; drop a short remainder."""
    lines: list[str] = []
    size = 0
    for line in source.splitlines(keepends=True):
        lines.append(line)
        size += len(line)
        if size >= CHUNK_CHARACTERS:
            if size < 2 * CHUNK_CHARACTERS:
                yield "".join(lines)
            lines, size = [], 0


# --- task: function bodies of sympy ----------------------------------------------------------


def task_examples() -> list[TaskExample]:
    """All task examples, unique in prompt and in response, in a seeded shuffled order."""
    # Uniqueness in both keeps a later train/validation split free of shared text.
    seen_prompts: set[str] = set()
    seen_responses: set[str] = set()
    examples: list[TaskExample] = []
    with _garbage_collection_paused():
        for module, source in _sympy_modules():
            for example in _examples_of(source, module):
                if example["prompt"] in seen_prompts or example["response"] in seen_responses:
                    continue
                seen_prompts.add(example["prompt"])
                seen_responses.add(example["response"])
                examples.append(example)
    examples.sort(key=lambda example: (example["source"], example["prompt"]))
    random.Random(SHUFFLE_SEED).shuffle(examples)
    return examples


def _sympy_modules() -> Iterator[tuple[str, str]]:
    """Yield (path, source) of the sympy modules that examples are taken from."""
    root = _package_folder("sympy")
    for subpackage in SYMPY_SUBPACKAGES:
        for path in _python_files(root / subpackage, frozenset({"tests", "benchmarks"})):
            if path.stat().st_size <= MAXIMUM_SYMPY_BYTES:
                module = path.relative_to(root.parent).as_posix()
                yield module, path.read_text(encoding="utf-8")


def _examples_of(source: str, module: str) -> Iterator[TaskExample]:
    """Yield the usable functions and methods of one module."""
    lines = source.splitlines(keepends=True)
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        scope = pending.pop()
        for node in ast.iter_child_nodes(scope):
            if isinstance(node, ast.ClassDef):
                pending.append(node)
            elif isinstance(node, ast.FunctionDef):
                example = _example_of(node, lines, module)
                if example is not None:
                    yield example


def _example_of(function: ast.FunctionDef, lines: list[str], module: str) -> TaskExample | None:
    """Make the example of one function; None when it has no summary or an unsuitable body."""
    docstring = ast.get_docstring(function, clean=False)
    if docstring is None or _is_trivial(function.body[1:]):
        return None
    summary_node = function.body[0]
    assert summary_node.end_lineno is not None and function.end_lineno is not None
    signature = _dedent(lines[function.lineno - 1 : summary_node.lineno - 1], function.col_offset)
    body = _dedent(lines[summary_node.end_lineno : function.end_lineno], function.col_offset)
    summary = inspect.cleandoc(docstring).split("\n\n")[0]
    if signature is None or body is None or not _fits(signature, summary, body.strip()):
        return None
    indented = summary.replace("\n", "\n    ")
    return {
        "prompt": f'{signature}    """{indented}"""\n',
        "response": body.lstrip("\n").rstrip() + "\n",
        "source": module,
    }


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Parse twice as fast: a syntax tree is many objects and no cycles, nothing to collect."""
    resume = gc.enable if gc.isenabled() else gc.disable
    gc.disable()
    try:
        yield
    finally:
        resume()


def _is_trivial(statements: list[ast.stmt]) -> bool:
    """Whether a body computes nothing: empty, a bare raise or pass, or a returned constant."""
    if len(statements) != 1:
        return not statements
    statement = statements[0]
    if isinstance(statement, ast.Return):
        return statement.value is None or isinstance(statement.value, ast.Constant)
    return isinstance(statement, ast.Raise | ast.Pass)


def _fits(signature: str, summary: str, body: str) -> bool:
    """Whether the parts are short enough, and the summary can be quoted without escapes."""
    return (
        BODY_CHARACTERS[0] <= len(body) <= BODY_CHARACTERS[1]
        and 0 < len(summary) <= MAXIMUM_SUMMARY_CHARACTERS
        and 0 < len(signature) <= MAXIMUM_SIGNATURE_CHARACTERS
        and not any(mark in summary for mark in ("\\", '"""'))
        and not summary.endswith('"')
    )


def _dedent(lines: list[str], columns: int) -> str | None:
    """Remove `columns` leading spaces of each line; None when a line is indented less."""
    if any(line[:columns].strip() for line in lines):
        return None
    return "".join(line[columns:] if line.strip() else "\n" for line in lines)


# --- files -----------------------------------------------------------------------------------


def write_demo_files(folder: Path) -> None:
    """Write task.jsonl and general.jsonl into `folder`, unless they are already up to date.

    Up to date means: made by this recipe from the installed versions, and unchanged since.

    Raises:
        UserError: files of these names are there that this did not write.
    """
    made_from = {
        "recipe": str(RECIPE_VERSION),
        "python": platform.python_version(),
        "sympy": importlib.metadata.version("sympy"),
    }
    if _is_up_to_date(folder, made_from):
        return
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        TASK_FILE: _json_lines(task_examples()),
        GENERAL_FILE: _json_lines({"text": chunk} for chunk in general_chunks()),
    }
    known = _stamp(folder)
    for name, content in contents.items():
        path = folder / name
        if path.exists() and _digest(_text(path)) not in (known.get(name), _digest(content)):
            raise UserError(
                f"{path} is not as the demo wrote it, and would be replaced. Move it away, or use "
                "it in a study of your own: study init."
            )
    for name, content in contents.items():
        _replace_file(folder / name, content)
    # Last: an interrupted run leaves no stamp that vouches for half of the files.
    stamp = made_from | {name: _digest(content) for name, content in contents.items()}
    _replace_file(folder / STAMP_FILE, json.dumps(stamp, indent=2) + "\n")


def _is_up_to_date(folder: Path, made_from: dict[str, str]) -> bool:
    """Whether the folder's stamp names these versions and these file contents."""
    present = {name: _digest(_text(folder / name)) for name in (TASK_FILE, GENERAL_FILE)}
    return _stamp(folder) == made_from | present


def _stamp(folder: Path) -> dict[str, str]:
    try:
        found = json.loads(_text(folder / STAMP_FILE))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(path: Path) -> str:
    """A file's content; nothing, of one that is not there or holds no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _replace_file(path: Path, content: str) -> None:
    """Write a file so that readers and parallel writers only ever see it complete."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)


def _json_lines(rows: Iterable[object]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _package_folder(package: str) -> Path:
    """The folder of an installed package, found without the cost of importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"the demo's task text is made from {package}: install it")
    return Path(spec.origin).parent


def _python_files(root: Path, skipped_folders: frozenset[str]) -> Iterator[Path]:
    """Yield the Python files under `root`, in sorted order, without entering skipped folders."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = sorted(set(subfolders) - skipped_folders)
        for name in sorted(names):
            if name.endswith(".py"):
                yield Path(folder) / name
