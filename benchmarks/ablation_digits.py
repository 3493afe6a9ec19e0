"""Measure each upgrade on the digits, with soft and with class labels: of several distillations.

Every row is `recipes/digits.yaml` with some keys changed, ten images per class, scored on
validation images: D4M as published, every upgrade alone, and what a recipe gets that leaves
prototypes and synthesis open. Teacher and students are the recipe's in all rows. Rows share
artifacts through the store. If it was stopped, run it again: nothing is computed twice.

    OMP_NUM_THREADS=1 python benchmarks/ablation_digits.py --distillations 3 --seeds 1
"""

import argparse
from collections.abc import Iterable

from variants import Edits, score_variant

from d4m.scores.spread import Spread
from d4m.stages.score_table import ScoreRow

PUBLISHED: Edits = {
    "prototypes": {"ipc": 10, "method": "minibatch_kmeans", "representative": "mean"},
    "synthesis": {
        "strength": 0.7,
        "guidance_scale": 8.0,
        "num_inference_steps": 50,
        "scheduler": "pndm",
    },
}
OPEN: Edits = {"prototypes": {"ipc": 10}, "synthesis": {}}
_LIGHT: Edits = {
    "synthesis.strength": 0.05,
    "synthesis.guidance_scale": 1.0,
    "synthesis.num_inference_steps": 20,
    "synthesis.scheduler": "dpmsolver++",
}
_REFINED = {"steps": 300, "learning_rate": 0.04, "through": "vae"}
UPGRADES: dict[str, Edits] = {
    "exact k-means, ten starts": {"prototypes.method": "kmeans", "prototypes.starts": 10},
    "prototypes that explain the teacher": {"prototypes.representative": "explaining"},
    "refinement towards class labels": {
        "prototypes.refinement": {**_REFINED, "labels": "class"},
    },
    "refinement towards the teacher": {
        "prototypes.representative": "explaining",
        "prototypes.refinement": {**_REFINED, "labels": "teacher"},
    },
    "one step of little noise, no guidance": _LIGHT,
    "both refinements, one step of little noise, no guidance": {
        **_LIGHT,
        "prototypes.representative": "explaining",
        "prototypes.refinement": {**_REFINED, "labels": "both"},
    },
    "mosaics of four": {"synthesis.mosaic": 2},
    "mode guidance 0.1 (MGD3)": {"synthesis.mode_guidance": 0.1},
    "RSM in the denoiser's training": {"generator.compact.denoiser.rsm_weight": 0.05},
    "CGS": {"synthesis.set_guidance": {"cgs": {}}},
    "DAP": {"synthesis.set_guidance": {"dap": {}}},
    "optimal transport": {"synthesis.set_guidance": {"ot": {}}},
    "DDIM inversion (D3HR)": {"synthesis.inversion": True, "synthesis.scheduler": "ddim"},
    "8 candidates a prototype": {"synthesis.candidates": 8},
    "three teachers": {"teacher.members": 3},
}


def main() -> None:
    """Run every row and print the table as Markdown, row by row."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--distillations", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="students per distillation")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="rows with one of these in the name"
    )
    asked = parser.parse_args()
    held_out: Edits = {"dataset": {"source": "digits", "validation_share": 0.2}}
    evaluation: Edits = {
        "students": ["convnet3"],
        "labels": ["soft", "hard"],
        "baselines": ["random_real"],
        "distillations": asked.distillations,
        "seeds": asked.seeds,
    }
    rows = {"D4M as published": PUBLISHED}
    rows |= {f"published, with {name}": {**PUBLISHED, **own} for name, own in UPGRADES.items()}
    rows |= {"**prototypes and synthesis left open**": OPEN}
    print("| row | soft labels | ahead of random real | class labels | ahead of random real |")
    print("|---|---|---|---|---|")
    chosen = {name: rows[name] for name in rows if any(text in name for text in asked.only)}
    for name, edits in chosen.items():
        found = score_variant({**held_out, **edits}, evaluation=evaluation, of="digits")
        if name == next(iter(chosen)):
            print(_line("random real images", _of(found, "random_real")))
        print(_line(name, _of(found, "synthetic")), flush=True)


def _of(rows: Iterable[ScoreRow], training_set: str) -> dict[str, ScoreRow]:
    return {row.labels: row for row in rows if row.training_set == training_set}


def _line(name: str, rows: dict[str, ScoreRow]) -> str:
    cells = [
        f"{_cell(rows[labels].spread)} | {_cell(rows[labels].lead)}" for labels in ("soft", "hard")
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _cell(spread: Spread | None) -> str:
    """Return a mean in percent with its standard error."""
    if spread is None:
        return ""
    error = "" if spread.error is None else f" ± {100 * spread.error:.2f}"
    return f"{100 * spread.mean:.2f}{error}"


if __name__ == "__main__":
    main()
