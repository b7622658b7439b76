"""From a study's rows and a sweep's scores to the answer."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from analysis.panel import cut, load, panel
from analysis.transfer import Transfer, transfer
from lab.transfer import rows
from lab.transfer.form import Study
from lab.transfer.pieces import Blocks, StudyError, pieces, row_key
from sweeps import recipe as recipes
from sweeps.packs import KNOWN

__all__ = ["held_against", "rows_of"]


def rows_of(study: Study, folder: Path, blocks: Blocks) -> tuple[pl.DataFrame, int]:
    """The study's finished trainings in ``folder`` and among those that ship, and how many are asked for.

    Of trainings made in several ways (other sources, kernel or data) those of the way that has the most.
    """
    keys = [
        row_key(piece.spec(tokens), study.scored)
        for piece in pieces(study, blocks)
        for tokens in study.tokens
    ]
    return rows.asked_for(rows.read(folder, rows.KNOWN / f"{study.name}.parquet"), keys), len(keys)


def held_against(study: Study, frame: pl.DataFrame, asked: int, verdict: Path | None) -> Transfer:
    """The answer. verdict: a run folder or parquet file; None for the shipped runs of the study's recipe.

    Raises PanelError where the verdict lacks a schedule or is no sweep; StudyError where none is there.
    """
    recipe = recipes.load(study.recipe)
    path = KNOWN / f"{recipe.name}.parquet" if verdict is None else verdict
    if verdict is None and not path.exists():
        path = Path("runs", recipe.name)
        if not path.exists():
            raise StudyError(
                f"no runs of the recipe {recipe.name} ship with the lab, and {path} is not there; sweep "
                "it first, or give --verdict a run folder or parquet file"
            )
    score = "auc" if recipe.score == "steps" else recipe.score
    return transfer(frame, cut(panel(load(path), score)), study.schedules, asked)
