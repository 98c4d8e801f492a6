"""The code blocks of every page of documentation, and the rule by which each is tested."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    and path.relative_to(ROOT).parts[0] not in ("results", "study-demo", "build", "dist")
)
_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[a-z ]+) -->\n+)?^```(?P<language>.*)\n(?P<text>(?s:.*?))^```$", re.M
)
TUTORIAL = "study/cli/examples/templates/README.md"


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: its file, from the repository's root.
        line: its first line in the page.
        language: what stands behind the fence.
        mark: the HTML comment right above it, which says how a block of output is tested.
        text: what is inside.
    """

    page: str
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(path: Path) -> list[Block]:
    page, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
    return [
        Block(
            page, text[: match.start("text")].count("\n") + 1, match["language"],
            match["mark"] or "", match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]  # fmt: skip


BLOCKS = [block for path in PAGES for block in blocks_of(path)]


def rule_of(block: Block) -> str:
    """Which test a block is for.

    Raises:
        LookupError: none; a block must not go untested.
    """
    if block.page == TUTORIAL:
        return "tutorial"  # run in order, for real
    if block.language in ("bash", "yaml"):
        return block.language
    if block.language == "python" and block.mark == "in the tutorial":
        return "python"  # run in the folder that the tutorial leaves
    if block.language == "text" and block.mark in ("files", "output of a run", "output of a check"):
        return block.mark
    raise LookupError(f"{block}: nothing tests this block ({block.language!r}, {block.mark!r})")


def with_rule(rule: str) -> list[Block]:
    return [block for block in BLOCKS if rule_of(block) == rule]


def commands(text: str) -> list[list[str]]:
    """The commands of a block of shell, as words: no comments, assignments, redirections."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in ("&&", "&", "|", ";"):
                words = words[: words.index(">")] if ">" in words else words
                while words and re.fullmatch(r"\w+=.*", words[0]):
                    words = words[1:]
                found += [words] if words else []
                words = []
            else:
                words.append(word)
    return found
