from __future__ import annotations

import time

import pytest
import torch

from study.training.engine.checksum import checksum

DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int8]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("numel", [1, 7, 8, 9, 2**17 + 5])
def test_any_single_change_shows(numel: int, dtype: torch.dtype) -> None:
    tensor = (torch.arange(numel) % 100 + 1).to(dtype)
    base = checksum(tensor)
    assert checksum(tensor.clone()) == base
    for index in {0, numel // 2, numel - 1}:
        changed = tensor.clone()
        changed[index] = -changed[index]
        assert checksum(changed) != base


@pytest.mark.parametrize("dtype", DTYPES)
def test_swaps_and_the_same_change_everywhere_show(dtype: torch.dtype) -> None:
    tensor = (torch.arange(2**17) % 90).to(dtype)
    found = {checksum(t) for t in (tensor, tensor.flip(0), tensor + 1, tensor.roll(8))}
    halves = torch.cat([tensor[2**16 :], tensor[: 2**16]])
    halves[0] += 1
    assert len(found | {checksum(halves)}) == 5


def test_it_depends_on_the_bits_alone() -> None:
    tensor = torch.randn(64, 33)
    assert checksum(tensor.t().contiguous().t()) == checksum(tensor)
    flat = torch.randn(100)
    assert checksum(flat[3:90]) == checksum(flat[3:90].clone())
    assert checksum(torch.empty(0)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16])
def test_flipped_signs_show_however_many_and_wherever(dtype: torch.dtype) -> None:
    size, columns = 2**18, 64  # several chunks
    tensor = (torch.rand(size, generator=torch.Generator().manual_seed(0)) + 0.5).to(dtype)
    places = [
        [1, 3],  # both the highest bit of a 64-bit word
        [3, 7],
        [5, 2**17 + 5],  # the same place in two chunks
        [1, 3, 5, 7],
        [0, size - 1],
        list(range(3, size, 4)),
        list(range(size)),
        *([*range(c, size, columns), *range(c + 2, size, columns)] for c in range(4)),
    ]
    found = {checksum(tensor)}
    for flipped in places:
        changed = tensor.clone()
        changed[flipped] *= -1
        found.add(checksum(changed))
    assert len(found) == 1 + len(places)


def test_no_two_pairs_of_flipped_signs_are_the_same_change() -> None:
    tensor = torch.ones(64)
    found = set()
    for one in range(64):
        for other in range(one):
            changed = tensor.clone()
            changed[[one, other]] = -1
            found.add(checksum(changed))
    assert len(found) == 64 * 63 / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapped_rows_columns_and_neighbours_show(dtype: torch.dtype) -> None:
    tensor = torch.randn(512, 256, generator=torch.Generator().manual_seed(0)).to(dtype)
    swapped = [tensor.clone() for _ in range(4)]
    swapped[0][[3, 4]] = tensor[[4, 3]]
    swapped[1][:, [0, 2]] = tensor[:, [2, 0]]
    swapped[2][0, [0, 1]] = tensor[0, [1, 0]]  # the halves of one word in fp32
    swapped[3][[0, 256]] = tensor[[256, 0]]
    assert len({checksum(t) for t in (tensor, *swapped)}) == 5


def test_what_a_checksum_costs_is_printed() -> None:
    tensor = torch.randn(2**22)
    seconds: dict[str, float] = {}
    for _ in range(5):
        for name, read in (("checksum", checksum), ("one read", torch.sum)):
            before = time.perf_counter()
            read(tensor)
            seconds[name] = min(seconds.get(name, 9.0), time.perf_counter() - before)
    print({name: f"{2**24 / s / 1e9:.1f} GB/s" for name, s in seconds.items()})
