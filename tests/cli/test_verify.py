"""Verify: what is damaged."""

from tests.cli.commands import call, fail

UNITS = 79


def test_verify_counts_the_units_that_are_what_was_written(finished):
    assert call(finished, "verify", "tiny")[0] == f"{UNITS} units are intact, 0 are damaged"


def test_verify_names_damaged_units_sets_them_aside_and_fails(finished):
    record = finished.pipeline().open_context().upstream["prototypes"]["class-00004"]
    context = finished.pipeline().open_context()
    folder = finished.store / context.store.find("prototypes", record.key).path
    chunk = next(path for path in (folder / "prototypes" / "c").rglob("*") if path.is_file())
    content = bytearray(chunk.read_bytes())
    content[5] ^= 1
    chunk.write_bytes(content)
    printed, errors = fail(finished, "verify", "tiny")
    assert "damaged prototypes/class-00004: " in printed
    assert f"{UNITS - 1} units are intact, 1 are damaged" in printed
    assert "`d4m run` computes them again" in printed
    assert errors == ""
    assert context.store.find("prototypes", record.key) is None
    assert call(finished, "run", "tiny")[-2].startswith("1 units computed in ")
    assert call(finished, "verify", "tiny")[0] == f"{UNITS} units are intact, 0 are damaged"
