"""The cache in numpy arrays against one dictionary entry for each vector."""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np
import pytest

from kobart_runtime import host_kv_cache
from kobart_runtime.host_kv_cache import HostKvCache
from kobart_runtime.model_config import ModelShape

SHAPE = ModelShape(num_decoder_layers=2, num_heads=3, head_dim=4, vocab_size=9, num_candidates=4)
NUM_TENSORS = 4
HEADS, HEAD_DIM = SHAPE.num_heads, SHAPE.head_dim


class NaiveCache:
    """Vectors [H, D] by tensor, slot and place; what was never written is zero."""

    def __init__(self) -> None:
        self.num_slots = self.num_entries = self.source_len = 0
        self.num_used = 0
        self.self_kv = self._empty()
        self.cross_kv = self._empty()
        self.source_lens: dict[int, int] = {}

    def resize(self, num_used: int, num_slots: int, num_entries: int, source_len: int) -> None:
        self.num_used = num_used
        self.num_slots, self.num_entries, self.source_len = num_slots, num_entries, source_len
        for kv, room in ((self.self_kv, num_entries), (self.cross_kv, source_len)):
            for key in [key for key in kv if key[1] >= num_used or key[2] >= room]:
                del kv[key]
        self.source_lens = {
            slot: min(length, source_len)
            for slot, length in self.source_lens.items()
            if slot < num_used
        }

    def put(self, slot: int, encoded: list[np.ndarray], row: int, source_len: int) -> None:
        """`encoded`: [R, H, S, D] each."""
        self.source_lens[slot] = source_len
        for tensor in range(NUM_TENSORS):
            for place in range(source_len):
                self.cross_kv[tensor, slot, place] = encoded[tensor][row, :, place]

    def move(self, source: int, target: int) -> None:
        self.source_lens[target] = self.source_lens[source]
        for kv, room in ((self.self_kv, self.num_entries), (self.cross_kv, self.source_len)):
            for tensor in range(NUM_TENSORS):
                for place in range(room):
                    kv[tensor, target, place] = kv[tensor, source, place]

    def write(self, new_entries: np.ndarray, present: list[np.ndarray]) -> None:
        for slot, beam in np.ndindex(*new_entries.shape):
            for tensor in range(NUM_TENSORS):
                entry = int(new_entries[slot, beam])
                self.self_kv[tensor, slot, entry] = present[tensor][slot, :, beam]

    @staticmethod
    def _empty() -> defaultdict[tuple[int, int, int], np.ndarray]:
        return defaultdict(lambda: np.zeros((HEADS, HEAD_DIM), np.float32))


def states(rng: np.random.Generator, rows: int, places: int) -> list[np.ndarray]:
    shape = (NUM_TENSORS, rows, HEADS, places, HEAD_DIM)
    return list(rng.standard_normal(shape, dtype=np.float32))


def turned(tensors: list[np.ndarray]) -> list[np.ndarray]:
    """The keys among them, [.., S, D], as [.., D, S]."""
    return [
        tensor.swapaxes(2, 3) if index % 2 == 0 else tensor for index, tensor in enumerate(tensors)
    ]


def assert_equal(cache: HostKvCache, naive: NaiveCache) -> None:
    cross_kv = cache.cross_kv
    assert all(array.flags.c_contiguous for array in (*cache.self_kv, *cross_kv))
    if cross_kv[0].dtype == np.uint8:
        cross_kv = turned(cross_kv)
    for arrays, kv, room in (
        (cache.self_kv, naive.self_kv, naive.num_entries),
        (cross_kv, naive.cross_kv, naive.source_len),
    ):
        for tensor, array in enumerate(arrays):
            assert array.shape == (naive.num_slots, HEADS, room, HEAD_DIM)
            for slot, place in np.ndindex(naive.num_used, room):
                np.testing.assert_array_equal(array[slot, :, place], kv[tensor, slot, place])
    assert cache.encoder_attention_mask.dtype == np.int32
    for slot in range(naive.num_used):
        length = naive.source_lens[slot]
        expected = [1] * length + [0] * (naive.source_len - length)
        assert cache.encoder_attention_mask[slot].tolist() == expected


@pytest.mark.parametrize("cross_dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("seed", range(6))
def test_equals_the_naive_cache(seed: int, cross_dtype: type) -> None:
    choose, rng = random.Random(seed), np.random.default_rng(seed)
    cache, naive = HostKvCache(SHAPE, np.float32, 0, 0, 0, cross_dtype), NaiveCache()
    for _ in range(60):
        used = naive.num_used
        action = choose.choice(["resize", "put", "move", "write", "write"])
        if action == "resize":
            slots = choose.randint(used, 5)
            room = slots, choose.randint(1, 9), choose.randint(1, 7)
            cache.resize(used, *room)
            naive.resize(used, *room)
        elif action == "put" and used < naive.num_slots:
            length = choose.randint(1, naive.source_len)
            encoded, row = states(rng, 3, 7), choose.randrange(3)
            if cross_dtype is np.uint8:
                encoded = [(100 * each).astype(np.int8).view(np.uint8) for each in encoded]
            given = turned(encoded) if cross_dtype is np.uint8 else encoded
            cache.put(used, given, row, length)
            naive.put(used, encoded, row, length)
            naive.num_used += 1
        elif action == "move" and used:  # as retiring does
            gap = choose.randrange(used)
            cache.move(used - 1, gap)
            naive.move(used - 1, gap)
            naive.num_used -= 1
        elif action == "write" and used and naive.num_entries:
            num_beams = choose.randint(1, naive.num_entries)
            places = [choose.sample(range(naive.num_entries), num_beams) for _ in range(used)]
            new_entries, present = np.array(places, np.int64), states(rng, used, num_beams)
            cache.write(new_entries, present)
            naive.write(new_entries, present)
        assert_equal(cache, naive)


def test_new_room_is_zero_and_not_what_memory_held() -> None:
    """0 * NaN is NaN: an entry that no beam sees must not hold one."""
    cache = HostKvCache(SHAPE, np.float32, 2, 3, 4)
    arrays = [*cache.self_kv, *cache.cross_kv]
    cache.resize(0, 4, 8, 8)
    arrays += [*cache.self_kv, *cache.cross_kv]
    assert all(not array.any() for array in arrays)


def test_dtype_is_kept() -> None:
    cache = HostKvCache(SHAPE, np.float16, 1, 2, 3, np.uint8)
    cache.resize(1, 2, 4, 6)
    assert {array.dtype for array in cache.self_kv} == {np.dtype(np.float16)}
    assert {array.dtype for array in cache.cross_kv} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("num_arrays", range(5))
def test_without_memory_to_grow_nothing_has_changed(
    monkeypatch: pytest.MonkeyPatch, num_arrays: int
) -> None:
    """Whichever array it is that finds no memory."""
    cache = HostKvCache(SHAPE, np.float32, 1, 3, 4)
    cache.put(0, states(np.random.default_rng(0), 1, 4), 0, 4)
    before = [*cache.self_kv, *cache.cross_kv, cache.encoder_attention_mask]
    left = iter([True] * num_arrays)
    real = host_kv_cache._resized

    def resized(array: np.ndarray, shape: tuple[int, ...], num_used: int) -> np.ndarray:
        if not next(left, False):
            raise MemoryError
        return real(array, shape, num_used)

    monkeypatch.setattr(host_kv_cache, "_resized", resized)
    with pytest.raises(MemoryError):
        cache.resize(1, 2, 8, 8)
    after = [*cache.self_kv, *cache.cross_kv, cache.encoder_attention_mask]
    assert all(one is other for one, other in zip(before, after, strict=True))
    assert (cache.num_slots, cache.num_entries, cache.source_len) == (1, 3, 4)
