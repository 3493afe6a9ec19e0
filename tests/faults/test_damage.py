"""Damaged units are named, set aside and computed again, and are never used as data."""

import logging
import os

import numpy as np
import pytest

from d4m.errors import DamagedUnitError
from d4m.pipeline import STAGES
from tests.faults.conftest import often

pytestmark = pytest.mark.faults

# One or two units per artifact, to be damaged at random places.
VICTIMS = {
    "real_images": ["train-00004", "test-00008"],
    "generator": ["scheduler"],
    "latents": ["class-00002"],
    "prototypes": ["class-00007"],
    "synthetic_images": ["class-00001"],
    "teacher": ["teacher"],
    "soft_labels": ["epochs-000002"],
    "evaluation_scores": ["synthetic-hard-convnet3-01", "teacher"],
    "image_fidelity": ["random_real"],
    "distilled_dataset": ["distilled_dataset"],
}


def _flip(path, rng, *, keep_times=False):
    """Flip one bit at a random place without changing the file's size."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    assert path.stat().st_size == stat.st_size
    if keep_times:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert path.stat().st_mtime_ns == stat.st_mtime_ns


def _chosen(paths, rng):
    return sorted(paths)[rng.integers(len(paths))]


def _flip_a_bit(stored, stage, name, rng):
    _flip(_chosen(stored.contents(stage, name), rng), rng)


def _delete_a_file(stored, stage, name, rng):
    """Delete a file of any kind: a chunk, metadata or weights."""
    files = [path for path in stored.folder(stage, name).rglob("*") if path.is_file()]
    _chosen(files, rng).unlink()


def _truncate_a_file(stored, stage, name, rng):
    path = _chosen(stored.contents(stage, name), rng)
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def _hurt_the_reference(stored, stage, name, rng):
    path = stored.reference(stage, name)
    content = path.read_bytes()
    match rng.integers(3):
        case 0:
            _flip(path, rng)
        case 1:
            path.write_bytes(content[: rng.integers(len(content))])
        case _:
            path.unlink()


def _rot_silently(stored, stage, name, rng):
    _flip(_chosen(stored.contents(stage, name), rng), rng, keep_times=True)


def _computed(caplog):
    """Return the names of the units that the captured log reports as computed, by stage."""
    found = {stage.name: set() for stage in STAGES}
    for record in caplog.records:
        if record.msg == "computed %s/%s":
            stage, unit = record.args
            assert unit not in found[stage], f"{stage}/{unit} was computed twice"
            found[stage].add(unit)
    return found


def _run_and_watch(workspace, caplog):
    """Run the recipe and return the names of all units it computed, including repairs."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="d4m"):
        workspace.run()
    return _computed(caplog)


def _set_aside(stored, stage, name):
    reference = stored.reference(stage, name)
    return list(reference.parent.glob(f"{reference.stem}.damaged-*"))


@pytest.mark.parametrize(
    "damage",
    [
        _flip_a_bit,
        _delete_a_file,
        _truncate_a_file,
        _hurt_the_reference,
    ],
)
def test_damage_to_any_artifact_is_named_set_aside_and_repaired_and_nothing_else_is_touched(
    stored, caplog, damage
):
    workspace = stored.workspace
    rng = np.random.default_rng(sum(map(ord, damage.__name__)))
    victims = [(stage, name) for stage, names in VICTIMS.items() for name in names]
    for stage, name in victims:
        damage(stored, stage, name, rng)
    to_be_named = [victim for victim in victims if stored.reference(*victim).exists()]
    assert len(to_be_named) == len(victims) or damage is _hurt_the_reference
    computed = _run_and_watch(workspace, caplog)
    named = {stage: set(names) for stage, names in VICTIMS.items()}
    assert computed == {stage.name: set() for stage in STAGES} | named
    for stage, name in to_be_named:
        assert f"damaged unit {stage}/{stored.units[stage][name].key[:12]}: " in caplog.text
        assert len(_set_aside(stored, stage, name)) == 1
    assert workspace.digests() == stored.undisturbed
    assert not any(_run_and_watch(workspace, caplog).values())


def test_single_damages_anywhere_are_found_before_use_and_repaired_alone(
    stored, caplog, record_property
):
    """Damage of any kind to any unit is never used as data, and no other unit is lost."""
    workspace, rng = stored.workspace, np.random.default_rng(20)
    damages = [_flip_a_bit, _delete_a_file, _truncate_a_file, _hurt_the_reference, _rot_silently]
    rounds = often(6, 200)
    for number in range(rounds):
        damage, stage = damages[number % 5], _chosen(VICTIMS, rng)
        # Units that are expensive to make again, such as a generator's, are damaged rarely.
        name = _chosen(VICTIMS[stage] if number % 10 else stored.names(stage), rng)
        damage(stored, stage, name, rng)
        if damage is _rot_silently:  # a lookup cannot see this damage, but `d4m verify` can
            found = {(s, unit) for s, unit, reason in workspace.pipeline().verify() if reason}
            assert found == {(stage, name)}
        computed = {
            each: names for each, names in _run_and_watch(workspace, caplog).items() if names
        }
        assert computed == {stage: {name}}, (number, damage.__name__, stage, name)
        assert workspace.digests() == stored.undisturbed
    record_property(
        "measured", f"{rounds} single damages: all found before use, each repaired alone"
    )


@pytest.mark.parametrize("component", ["vae", "denoiser"])
def test_a_damaged_component_of_the_generator_is_trained_again_alone(stored, caplog, component):
    weights = [p for p in stored.contents("generator", component) if p.suffix == ".safetensors"]
    _flip(_chosen(weights, rng := np.random.default_rng(3)), rng)
    computed = _run_and_watch(stored.workspace, caplog)
    assert {stage for stage, names in computed.items() if names} == {"generator"}
    assert computed["generator"] == {component}
    assert stored.workspace.digests() == stored.undisturbed


@pytest.mark.parametrize("stage", VICTIMS)
def test_silent_rot_is_found_by_every_reader_and_by_verify(stored, stage):
    """Size and time are unchanged, as when a disk decays, so that only reading finds the damage."""
    workspace, rng = stored.workspace, np.random.default_rng(11)
    read_name, verified_name = (VICTIMS[stage] * 2)[:2]
    if len(stored.names(stage)) > 1:
        verified_name = next(name for name in stored.names(stage) if name != read_name)
        _flip(_chosen(stored.contents(stage, verified_name), rng), rng, keep_times=True)
    context, key = workspace.pipeline().open_context(), stored.units[stage][read_name].key
    is_group = (stored.folder(stage, read_name) / "zarr.json").exists()
    read = context.store.read_arrays if is_group else context.store.open_files
    for path in stored.contents(stage, read_name)[:3]:
        content, stat = path.read_bytes(), path.stat()
        reference = stored.reference(stage, read_name).read_bytes()
        _flip(path, rng, keep_times=True)
        with pytest.raises(DamagedUnitError) as caught:
            read(stage, key)
        assert (caught.value.stage, caught.value.key) == (stage, key)
        assert context.store.find(stage, key) is None
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        stored.reference(stage, read_name).write_bytes(reference)
    read(stage, key)
    if len(stored.names(stage)) == 1:
        _flip(_chosen(stored.contents(stage, verified_name), rng), rng, keep_times=True)
    wrong = {(s, unit) for s, unit, reason in workspace.pipeline().verify() if reason}
    assert wrong == {(stage, verified_name)}
    assert context.store.find(stage, stored.units[stage][verified_name].key) is None


@pytest.mark.parametrize(
    ("rotten", "name", "lost"),
    [
        ("real_images", "train-00003", "latents"),
        ("real_images", "test-00006", "evaluation_scores"),
        ("generator", "vae", "latents"),
        ("generator", "scheduler", "synthetic_images"),
        ("latents", "class-00005", "prototypes"),
        ("prototypes", "class-00009", "synthetic_images"),
        ("synthetic_images", "class-00002", "soft_labels"),
        ("teacher", "teacher", "soft_labels"),
        ("evaluation_scores", "synthetic-soft-convnet3-00", "distilled_dataset"),
    ],
)
def test_silent_rot_met_in_the_middle_of_a_stage_is_repaired_on_the_way(
    stored, caplog, rotten, name, lost
):
    """No lookup can see the rot, but the stage that has to be computed finds it while reading."""
    workspace = stored.workspace
    lost_units = stored.names(lost)
    if lost == "evaluation_scores":
        lost_units = ["teacher"]
    stored.forget(lost, *lost_units)
    _flip(stored.contents(rotten, name)[0], np.random.default_rng(5), keep_times=True)
    computed = _run_and_watch(workspace, caplog)
    expected = {stage.name: set() for stage in STAGES} | {rotten: {name}, lost: set(lost_units)}
    assert computed == expected
    assert f"damaged unit {rotten}/{stored.units[rotten][name].key[:12]}: " in caplog.text
    assert workspace.digests() == stored.undisturbed
    assert all(not reason for _, _, reason in workspace.pipeline().verify())


def test_rot_in_several_upstream_units_at_once_is_repaired_one_after_the_other(stored, caplog):
    workspace = stored.workspace
    rng = np.random.default_rng(9)
    victims = {"class-00000", "class-00004", "class-00009"}
    for name in victims:
        _flip(stored.contents("synthetic_images", name)[0], rng, keep_times=True)
        _flip(stored.contents("prototypes", name)[0], rng, keep_times=True)
    stored.forget("soft_labels", *stored.names("soft_labels"))
    computed = {stage: names for stage, names in _run_and_watch(workspace, caplog).items() if names}
    assert computed == {
        "prototypes": victims,
        "synthetic_images": victims,
        "soft_labels": set(stored.names("soft_labels")),
    }
    assert workspace.digests() == stored.undisturbed


def test_a_single_stage_repairs_its_upstream_too(stored, caplog):
    """Dagster runs a stage like this: one asset, with the upstream units that manifests name."""
    stored.forget("prototypes", "class-00003")
    _flip(stored.contents("latents", "class-00003")[0], np.random.default_rng(2), keep_times=True)
    with caplog.at_level(logging.INFO, logger="d4m"):
        stored.workspace.pipeline().run_stage("prototypes")
    computed = {stage: names for stage, names in _computed(caplog).items() if names}
    assert computed == {"latents": {"class-00003"}, "prototypes": {"class-00003"}}
    assert stored.workspace.digests() == stored.undisturbed
