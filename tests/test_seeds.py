"""Random streams: Philox's published answers, and independence of everything but the address."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d4m.seeds import philox4x32, stream_generator, stream_seed, uniforms

# Counter, key and output of philox 4x32 with 10 rounds, from the file `kat_vectors` of Random123.
KNOWN_ANSWERS = [
    (
        (0x00000000, 0x00000000, 0x00000000, 0x00000000),
        (0x00000000, 0x00000000),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF),
        (0xFFFFFFFF, 0xFFFFFFFF),
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parity
@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    words = philox4x32(np.array([counter], np.uint64), key)
    assert [f"{word:08x}" for word in words[0]] == [f"{word:08x}" for word in expected]


def test_uniforms_are_philox_words_over_two_to_the_32():
    # The counter is (block, item, epoch, 0); the key is the (low, high) word of the seed.
    seed = (0x299F31D0 << 32) | 0x24093822
    words = philox4x32(
        np.array([[0, 7, 5, 0], [1, 7, 5, 0]], np.uint64), (0x24093822, 0x299F31D0)
    ).ravel()
    drawn = uniforms(seed, epoch=5, items=np.array([7]), draws=6)
    assert drawn.tolist() == [[int(word) / 2**32 for word in words[:6]]]


@settings(max_examples=30, deadline=None)
@given(
    items=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20),
    epoch=st.integers(0, 2**32 - 1),
    draws=st.integers(1, 13),
)
def test_a_row_does_not_depend_on_the_other_items_in_the_call(items, epoch, draws):
    together = uniforms(3, epoch=epoch, items=np.array(items), draws=draws)
    alone = [uniforms(3, epoch=epoch, items=np.array([item]), draws=draws)[0] for item in items]
    assert np.array_equal(together, np.stack(alone))


def test_fewer_draws_are_a_prefix_of_more():
    items = np.arange(5)
    more = uniforms(1, epoch=0, items=items, draws=11)
    assert np.array_equal(uniforms(1, epoch=0, items=items, draws=6), more[:, :6])


def test_seed_epoch_and_item_each_give_other_numbers():
    rows = [
        uniforms(seed, epoch=epoch, items=np.array([item]), draws=4)[0]
        for seed in (0, 1, 1 << 32)
        for epoch in (0, 1)
        for item in (0, 1)
    ]
    assert len(np.unique(np.concatenate(rows))) == 4 * len(rows)


def test_uniforms_are_uniform_and_independent_between_columns():
    drawn = uniforms(11, epoch=0, items=np.arange(20_000), draws=5)
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in drawn.T])
    chi_squared = ((counts - 1000) ** 2 / 1000).sum(axis=1)
    assert chi_squared.max() < 43.8  # 19 degrees of freedom, p = 0.001
    correlation = np.corrcoef(drawn.T) - np.eye(5)
    assert np.abs(correlation).max() < 4 / np.sqrt(20_000)


def test_stream_seeds_follow_names_and_keep_word_boundaries():
    addresses = [
        ("synthesis", 3, 1),
        ("synthesis", 31),
        ("synthesis", 1, 11),
        ("synthesis", 11, 1),  # file names of the published code collide here
        ("prototypes", 3, 1),
    ]
    seeds = {stream_seed(root, *address) for root in (0, 1) for address in addresses}
    assert len(seeds) == 2 * len(addresses)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_stream_seed_is_a_truncated_sha256():
    # The first 8 bytes of sha256("0/teacher") as coreutils prints it, little-endian, halved.
    assert (
        stream_seed(0, "teacher")
        == int.from_bytes(bytes.fromhex("7e680656a51a45ef"), "little") // 2
    )


def test_stream_generators_start_at_the_same_place_every_time():
    first = stream_generator(0, "order", 3).permutation(100)
    assert np.array_equal(first, stream_generator(0, "order", 3).permutation(100))
    assert not np.array_equal(first, stream_generator(0, "order", 4).permutation(100))
