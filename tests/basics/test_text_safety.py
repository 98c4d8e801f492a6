"""What a terminal would obey, or a spreadsheet run, is never in what leaves."""

from __future__ import annotations

import unicodedata

from study.basics.errors import ConfigError, Fault
from study.basics.text_safety import csv_cell, one_line, printable, without_colours


def test_no_control_direction_or_half_character_stays() -> None:
    every = "".join(map(chr, (*range(0x10000), *range(0xE0000, 0xE0200))))
    left = set(printable(every)) - {"\n", "\t"}
    kinds = {unicodedata.category(character) for character in left}
    assert not kinds & {"Cc", "Cs", "Zl", "Zp"}
    turning = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
    assert not turning & {unicodedata.bidirectional(character) for character in left}


def test_what_people_write_stays_as_it_is() -> None:
    for text in ("plain", "é ü 漢字 नमस्ते", "a\tb\nc", "👩‍👩‍👧", "\u00a0", "[red]x[/red]"):
        assert printable(text) == text


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert printable("a\x1b]0;owned\x07b\rc") == r"a\x1b]0;owned\x07b\rc"
    assert printable("\u202eevil\ud800") == r"\u202eevil\ud800"
    assert printable("one\r\ntwo") == "one\ntwo"
    assert one_line("a\nerror: b") == r"a\nerror: b"
    assert without_colours("\x1b[36m(pid=1)\x1b[0m x") == "(pid=1) x"


def test_a_fault_is_one_line_whatever_its_key_and_value_are() -> None:
    fault = Fault("a\n  - b\x1b[2J", 1, "x\n\x1b[31m", "unknown `k\n`.", "Remove\x07 it.")
    said = str(ConfigError("study\n.yaml", [fault]))
    assert len(said.splitlines()) == 2
    assert "\x1b" not in said and "\x07" not in said
    assert len(str(Fault("k" * 100_000, 1, None, "r.", ""))) == 2000


def test_a_cell_is_a_formula_in_no_spreadsheet() -> None:
    for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1", "\uff1d1"):
        assert csv_cell(text) == "'" + text
    assert csv_cell("\r=1") == r"\r=1"
    for value in ("a=b", "", "lift-n64", -1, -2.5, True, None):
        assert csv_cell(value) is value or csv_cell(value) == value
