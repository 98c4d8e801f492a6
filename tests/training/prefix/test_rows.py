"""Hidden states on disk: shared, bounded, and never wrong."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from study.training.prefix.open import choose_boundaries, highest
from study.training.prefix.store import HiddenRows, PrefixStore

LENGTHS = np.array([3, 1, 5, 2, 4] * 40)
OFFSETS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOKEN_BYTES = 4096
LIMIT = 2**40


def row(example: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng([seed, example])
    return generator.integers(0, 256, LENGTHS[example] * TOKEN_BYTES).astype(np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> PrefixStore:
    return PrefixStore(tmp_path / "cache", LIMIT, 0)


def open_rows(store: PrefixStore, key: str = "k", name: str = "pool.1") -> HiddenRows:
    return store.open(key, name, OFFSETS, TOKEN_BYTES)


def test_a_row_comes_back_as_it_was_also_in_another_reader(store: PrefixStore) -> None:
    writer, reader = open_rows(store), open_rows(store)
    assert reader.read(2) is None
    assert writer.write(2, row(2)) == len(row(2))
    for rows in (writer, reader, open_rows(store)):
        found = rows.read(2)
        assert found is not None and np.array_equal(found, row(2))
        assert rows.present([1, 2, 3]).tolist() == [False, True, False]
    assert writer.write(2, row(2, seed=1)) == 0, "the first row stays"


def test_rows_that_nobody_wrote_take_no_disk(store: PrefixStore) -> None:
    rows = open_rows(store)
    assert store.used_bytes() == 0
    rows.write(0, row(0))
    assert len(row(0)) <= store.used_bytes() < OFFSETS[-1] * TOKEN_BYTES / 10
    assert rows.missing_bytes(np.array([0, 1, 2])) == (1 + 5) * TOKEN_BYTES


def test_a_row_that_does_not_fit_its_checksum_is_absent_and_written_again(
    store: PrefixStore,
) -> None:
    open_rows(store).write(2, row(2))
    with (store.root / "k" / "pool.1.rows").open("r+b") as file:
        file.seek(4 * TOKEN_BYTES + 17)
        file.write(b"torn")
    rows = open_rows(store)
    assert rows.read(2) is None
    assert rows.write(2, row(2)) > 0
    found = rows.read(2)
    assert found is not None and np.array_equal(found, row(2))


def write_for_ever(root: Path, seed: int) -> None:
    rows = open_rows(PrefixStore(root, LIMIT, 0))
    for example in np.random.default_rng(seed).permutation(len(LENGTHS)):
        rows.write(int(example), row(int(example)))
        time.sleep(0.001)


def test_two_writers_and_a_kill_at_any_moment_leave_right_rows_or_none(store: PrefixStore) -> None:
    context = multiprocessing.get_context("fork")
    seen = 0
    for attempt in range(6):
        writers = [
            context.Process(target=write_for_ever, args=(store.root, 10 * attempt + i))
            for i in range(2)
        ]
        for writer in writers:
            writer.start()
        time.sleep(0.03 + 0.02 * attempt)
        for writer in writers:
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        rows = open_rows(store)
        found = {i: r for i in range(len(LENGTHS)) if (r := rows.read(i)) is not None}
        assert all(np.array_equal(r, row(i)) for i, r in found.items())
        assert len(found) >= seen
        seen = len(found)
        rows.close()
    assert seen > 0


def test_the_longest_unused_rows_go_first_and_open_ones_stay(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, 200 * TOKEN_BYTES, 0)
    for age, key in enumerate(("newest", "older", "oldest", "in use", "mine")):
        rows = open_rows(store, key)
        for example in range(15):
            rows.write(example, row(example))
        rows.close()
        os.utime(store.root / key / "pool.1.rows", (0, 1_000_000 - age))
    held = open_rows(store, "in use")
    os.utime(store.root / "in use" / "pool.1.rows", (0, 0))
    os.utime(store.root / "mine" / "pool.1.rows", (0, 0))
    assert store.room() < 0
    store.evict(40 * TOKEN_BYTES, keep={("mine", "pool.1")})
    left = {path.parent.name for path in store.root.glob("*/*.rows")}
    assert left == {"newest", "in use", "mine"}
    assert store.room() >= 40 * TOKEN_BYTES
    assert held.read(3) is not None


def filled(store: PrefixStore, key: str, name: str, age_seconds: float) -> None:
    rows = open_rows(store, key, name)
    for example in range(15):
        rows.write(example, row(example))
    rows.close()
    used = time.time() - age_seconds
    os.utime(store.root / key / f"{name}.rows", (used, used))


def test_of_ones_own_key_only_the_named_rows_stay(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path, 100 * TOKEN_BYTES, 0)
    for boundary in (1, 2, 3):  # 45 tokens each
        filled(store, "mine", f"pool.{boundary}", 100 - boundary)
    store.evict(40 * TOKEN_BYTES, keep={("mine", "pool.1")})
    assert sorted(p.name for p in tmp_path.glob("mine/*.rows")) == ["pool.1.rows"]
    assert store.room() >= 40 * TOKEN_BYTES


DAY = 24 * 3600.0


def test_rows_that_another_host_left_a_day_ago_count_and_go_like_ones_own(tmp_path: Path) -> None:
    def on(host: str, hosts: Path | None = tmp_path) -> PrefixStore:
        return PrefixStore(tmp_path / host, 110 * TOKEN_BYTES, 0, hosts)

    for host, age in (("gone", 3 * DAY), ("gone too", 2 * DAY), ("alive", 0.9 * DAY)):
        filled(on(host), "key", "pool.1", age)
    filled(on("reading"), "key", "pool.1", 0)
    held = open_rows(on("reading"), "key")
    os.utime(tmp_path / "reading" / "key" / "pool.1.rows", (0, 0))
    open_rows(on("mine"), "key").close()

    def left() -> list[str]:
        return sorted(p.parts[-3] for p in tmp_path.glob("*/*/*.rows"))

    # A folder of the user's own has nothing to do with what lies beside it.
    on("mine", None).evict(LIMIT, keep=())
    assert left() == ["alive", "gone", "gone too", "reading"]
    open_rows(on("mine"), "key").write(0, row(0))
    on("mine").evict(5 * TOKEN_BYTES, keep={("key", "pool.1")})
    assert left() == ["alive", "gone too", "mine", "reading"]
    on("mine").evict(100 * TOKEN_BYTES, keep={("key", "pool.1")})
    assert left() == ["alive", "mine", "reading"]
    assert held.read(3) is not None


def test_files_of_others_are_neither_counted_nor_evicted(tmp_path: Path) -> None:
    store = PrefixStore(tmp_path / "host", 110 * TOKEN_BYTES, 0, tmp_path)
    for folder in ("host/mine", "mine too/mine"):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("table.rows", "table.index"):
            (tmp_path / folder / name).write_bytes(b"mine" * 4096)
            os.utime(tmp_path / folder / name, (0, 0))
    assert store.used_bytes() == 0
    filled(store, "key", "pool.1", 0)
    store.evict(LIMIT, keep=())
    assert {p.parent.name for p in tmp_path.glob("*/*/*.rows")} == {"mine"}


def test_opening_while_another_evicts_gives_rows_that_others_see(store: PrefixStore) -> None:
    open_rows(store).close()
    store.evict(LIMIT * 2, keep=())
    first, second = open_rows(store), open_rows(store)
    first.write(1, row(1))
    assert second.read(1) is not None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("needs root to make a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_what_was_there(small_disk: Path) -> None:
    rows = open_rows(PrefixStore(small_disk, LIMIT, 0))
    written = []
    with pytest.raises(OSError, match="No space left"):
        for example in range(len(LENGTHS)):
            rows.write(example, row(example))
            written.append(example)
    assert len(written) > 3
    for example in written:
        found = rows.read(example)
        assert found is not None and np.array_equal(found, row(example))
    assert rows.read(len(written)) is None


def test_free_disk_is_left_to_others(small_disk: Path) -> None:
    assert PrefixStore(small_disk, LIMIT, 0).room() == 256 * 1024
    assert PrefixStore(small_disk, LIMIT, 100 * 1024).room() == 156 * 1024
    assert PrefixStore(small_disk, 1000, 0).room() == 1000


def test_the_rate_is_remembered_for_those_who_only_read(store: PrefixStore) -> None:
    assert store.fill_rate("k", 0.0, 0) == 0.0
    open_rows(store)
    assert store.fill_rate("k", 6.0, 3) == 2.0
    assert store.fill_rate("k", 0.0, 0) == 2.0


def test_what_was_found_exact_is_remembered_by_key(store: PrefixStore) -> None:
    assert store.verified("k") == set()
    store.set_verified("k", {2, 4})
    store.set_verified("k", {6})
    assert store.verified("k") == {2, 4, 6}
    assert store.verified("other") == set()


def test_with_room_for_one_boundary_the_one_that_saves_most_is_kept() -> None:
    phases = [(6, 10), (4, 10), (2, 10), (0, 10)]
    sizes = dict.fromkeys((6, 4, 2), 100)
    assert choose_boundaries(phases, sizes, 99) == set()
    # At 4 two phases save 4 blocks each; at 6 one saves 6, at 2 three save 2 each.
    assert choose_boundaries(phases, sizes, 100) == {4}
    # 2 and 6 would add the same; the lower one is used longer.
    assert choose_boundaries(phases, sizes, 200) == {2, 4}
    assert choose_boundaries(phases, sizes, 300) == {2, 4, 6}
    assert choose_boundaries(phases, {6: 0, 4: 100, 2: 100}, -5) == {6}, "already there"


def test_a_phase_reads_the_highest_boundary_at_or_below_its_own() -> None:
    assert [highest({2, 5}, b) for b in range(7)] == [0, 0, 2, 2, 2, 5, 5]
