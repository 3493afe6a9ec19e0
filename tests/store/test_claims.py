"""Claims: a run leaves out what another one computes, unless that one has ended."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from d4m.errors import UnsafeStoreError
from d4m.store import claims
from d4m.store.claims import Claim, Claims, wait_for_any
from d4m.store.folder_storage import FolderStorage
from d4m.store.open_storage import open_storage
from d4m.store.reference import Unit
from tests.object_stores import BUCKET, careless_moto, environment

UNITS = [Unit("latents", "1", f"class-{n}", {"n": n}) for n in range(4)]
OTHER = Unit("teacher", "1", "teacher", {})


@pytest.fixture
def storage(tmp_path):
    return FolderStorage(tmp_path / "store")


@pytest.fixture
def quick(monkeypatch):
    """Claims are renewed, and looked at, a hundred times as often."""
    monkeypatch.setattr(claims, "_PULSE_S", 0.01)
    monkeypatch.setattr(claims, "_LOOK_S", 0.01)


def _files(storage):
    return sorted((storage.root / "claims" / "latents").iterdir())


def test_a_run_leaves_out_what_another_has_claimed_and_takes_the_rest(storage):
    with Claims(storage, "latents").take(UNITS[:3]) as first:
        with Claims(storage, "latents").take(UNITS) as second:
            assert (first.units, second.units) == (UNITS[:3], UNITS[3:])
            with Claims(storage, "latents").take(UNITS) as third:
                assert third.units == []
        with Claims(storage, "prototypes").take(UNITS) as other_stage:
            assert other_stage.units == UNITS
    assert _files(storage) == []
    with Claims(storage, "latents").take(UNITS) as again:
        assert again.units == UNITS


def test_a_claim_ends_where_the_work_fails(storage):
    with pytest.raises(ZeroDivisionError), Claims(storage, "latents").take(UNITS):
        raise ZeroDivisionError
    assert _files(storage) == []


def test_whoever_waits_goes_on_when_the_first_unit_is_given_up(storage):
    ended = []
    with Claims(storage, "latents").take(UNITS):

        def wait():
            wait_for_any([(Claims(storage, "latents"), UNITS)])
            ended.append(len(_files(storage)))

        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(timeout=0.3)
        assert ended == []
    waiting.join()
    assert ended == [0]


def test_whoever_waits_for_several_stages_goes_on_when_one_is_given_up(storage):
    ended = threading.Event()
    held = [(Claims(storage, unit.stage), [unit]) for unit in (UNITS[0], OTHER)]

    def wait():
        wait_for_any(held)
        ended.set()

    with Claims(storage, "latents").take(UNITS[:1]):
        with Claims(storage, OTHER.stage).take([OTHER]):
            waiting = threading.Thread(target=wait)
            waiting.start()
            assert not ended.wait(0.3)
        waiting.join()
        assert len(_files(storage)) == 1  # the claim: the wish has gone


def _divided(units):
    """Return a claim on units, each of which is a piece, and what it has written."""
    written = list[list[Unit]]()
    claim = Claim(units, lambda units: written.append([*units]))
    claim.divide([[unit] for unit in units])
    return claim, written


def test_half_of_the_pieces_that_have_not_begun_are_given_away_each_time():
    claim, written = _divided(UNITS)
    assert claim.begin(UNITS[:1])
    claim.renew(wanted=False)
    claim.renew(wanted=True)
    claim.renew(wanted=True)
    claim.renew(wanted=True)
    assert written == [UNITS, UNITS[:2], UNITS[:1], UNITS[:1]]
    assert [claim.begin([unit]) for unit in UNITS] == [True, False, False, False]


def test_the_first_piece_is_kept_before_it_begins_and_so_is_each_that_has_begun():
    claim, written = _divided(UNITS)
    assert all(claim.begin([unit]) for unit in UNITS[1:])
    claim.renew(wanted=True)
    assert written == [UNITS]
    assert claim.begin(UNITS[:1])


def test_units_of_a_piece_are_given_away_together():
    written = list[list[Unit]]()
    claim = Claim(UNITS, lambda units: written.append([*units]))
    claim.divide([UNITS[:1], UNITS[1:]])
    claim.renew(wanted=True)
    assert written == [UNITS[:1]]
    assert not claim.begin(UNITS[1:])


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_asked_gives_units_away_in_the_midst_of_one_and_the_other_claims_them(
    storage,
):
    given = list[list[Unit]]()

    def other_run():
        own = Claims(storage, "latents")
        wait_for_any([(own, UNITS)])
        with own.take(UNITS) as claim:
            given.append(claim.units)

    with Claims(storage, "latents").take(UNITS) as claim:
        claim.divide([[unit] for unit in UNITS])
        assert claim.begin(UNITS[:1])
        other = threading.Thread(target=other_run)
        other.start()
        other.join()
        assert claim.units == UNITS[:2]
    assert given == [UNITS[2:]]
    assert _files(storage) == []


@pytest.mark.usefixtures("quick")
def test_a_wish_is_answered_once(storage):
    with (
        Claims(storage, "latents").take(UNITS) as claim,
        Claims(storage, "latents").wish(UNITS) as is_free,
    ):
        claim.divide([[unit] for unit in UNITS])
        while not is_free():
            time.sleep(0.001)
        [path] = [path for path in _files(storage) if path.suffix == ".json"]
        texts = set()
        while len(texts) < 4:  # it looks again and again
            texts.add(path.read_text())
        assert len(claim.units) == 2


@pytest.mark.usefixtures("quick")
def test_a_wish_for_other_units_is_none_for_these(storage):
    mine, others, held = UNITS[2:], UNITS[:2], Claims(storage, "latents")
    with held.take(others) as other, held.take(mine) as claim:
        claim.divide([[unit] for unit in mine])
        other.divide([[unit] for unit in others])
        waiting = threading.Thread(
            target=wait_for_any, args=([(Claims(storage, "latents"), others)],)
        )
        waiting.start()
        waiting.join()
        assert (other.units, claim.units) == (others[:1], mine)


@pytest.mark.usefixtures("quick")
def test_the_wish_of_a_process_that_was_killed_is_no_wish(storage):
    _leave_claim(storage, host=socket.gethostname(), process=_ended_process())
    [path] = _files(storage)
    path.rename(path.with_suffix(".wish"))
    with Claims(storage, "latents").take(UNITS) as claim:
        claim.divide([[unit] for unit in UNITS])
        while len(_files(storage)) > 1:
            time.sleep(0.001)
        assert claim.units == UNITS


def _ended_process():
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    return ended.pid


def _leave_claim(storage, *, host, process):
    with Claims(storage, "latents").take(UNITS):
        [path] = _files(storage)
        claim = json.loads(path.read_text()) | {"host": host, "process": process}
    path.write_text(json.dumps(claim))


def test_the_claim_of_a_process_that_was_killed_on_this_machine_is_void_at_once(storage):
    _leave_claim(storage, host=socket.gethostname(), process=_ended_process())
    with Claims(storage, "latents").take(UNITS) as mine:
        assert mine.units == UNITS
        assert len(_files(storage)) == 1


def test_the_claim_of_another_machine_is_void_once_it_has_no_pulse(storage, monkeypatch):
    _leave_claim(storage, host="elsewhere", process=os.getpid())
    other = Claims(storage, "latents")
    with other.take(UNITS) as mine:
        assert mine.units == []
    monkeypatch.setattr(claims, "_VOID_S", 0.0)
    wait_for_any([(other, UNITS)])
    with other.take(UNITS) as mine:
        assert mine.units == UNITS


@pytest.mark.usefixtures("quick")
def test_a_living_run_renews_its_claim(storage):
    with Claims(storage, "latents").take(UNITS):
        [path] = _files(storage)
        texts = set()
        while len(texts) < 3:
            texts.add(path.read_text())
    assert all(json.loads(text)["keys"] == sorted(u.key for u in UNITS) for text in texts)


@pytest.mark.parametrize("name", ["0.json", "0.wish", "lock"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"keys": 3}', b'{"keys": ["\xb5"]}'])
def test_a_broken_claim_wish_or_lock_counts_as_none(storage, name, content):
    folder = storage.root / "claims" / "latents"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    with Claims(storage, "latents").take(UNITS) as mine:
        assert mine.units == UNITS


def test_the_lock_of_a_run_that_was_killed_is_void_at_once(storage):
    _leave_claim(storage, host=socket.gethostname(), process=_ended_process())
    [path] = _files(storage)
    path.rename(path.with_name("lock"))
    with Claims(storage, "latents").take(UNITS) as mine:
        assert mine.units == UNITS
    assert _files(storage) == []


def test_of_many_runs_that_begin_at_once_each_unit_is_claimed_by_one(storage):
    units = [Unit("latents", "1", f"class-{n}", {"n": n}) for n in range(8)]
    begin, end, taken = threading.Barrier(8), threading.Barrier(8), []

    def run(number):
        begin.wait()
        with Claims(storage, "latents").take(units[number:]) as mine:
            taken.extend(mine.units)
            end.wait()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(unit.name for unit in taken) == [unit.name for unit in units]


def test_where_claims_cannot_be_written_all_units_are_taken(storage):
    storage.root.mkdir()
    (storage.root / "claims").write_text("a file where a folder is needed")
    with Claims(storage, "latents").take(UNITS) as mine:
        assert mine.units == UNITS


def test_a_server_that_creates_twice_gives_no_claim(tmp_path):
    with careless_moto() as address, environment(address, tmp_path):
        claim = Claims(open_storage(f"s3://{BUCKET}/careless"), "latents").take(UNITS)
        with pytest.raises(UnsafeStoreError, match="ignores `If-None-Match"), claim:
            pytest.fail("units were to be computed")
