"""A paper with one table, and a run that measured a part of it."""

from pathlib import Path

import pandas as pd

from keras_medseg.reporting.tables import Column, Reference, Row, TableSpec

from ..recipes import small_recipe

THEIRS = small_recipe(
    {
        "name": "net2020",
        "model.name": "net",
        "model.targets": (("WT",), ("ET",)),
        "train.epochs": 20,
        "train.optimizer": "sgd",
    }
)
PAPER = Reference(title="A <net> & its loss", recipe=THEIRS, data="BraTS2017", cases=5)
TABLE = TableSpec(
    id="Table II",
    title="Dice",
    columns=(Column("WT"), Column("ET")),
    rows=(
        Row("Rival"),
        Row("Ours", "without", "plain"),
        Row("Ours", "with", "edge"),
    ),
)
PUBLISHED = """table,row,variant,region,metric,value,unit,source,note
Table II,Rival,,WT,dice,91.28,%,p. 156,From its own paper.
Table II,Rival,,ET,dice,,%,p. 156,
Table II,Ours,without,WT,dice,88.44,%,p. 156,
Table II,Ours,without,ET,dice,76.15,%,p. 156,
Table II,Ours,with,WT,dice,90.59,%,p. 156,
Table II,Ours,with,ET,dice,77.50,%,p. 156,Table III prints 78.17.
"""
# Three validation cases: (WT, ET) of "edge", then WT of "plain", whose ET was not run.
EDGE = {"one": (0.90, 0.50), "two": (0.80, 0.70), "<three>": (0.70, 0.60)}
PLAIN = {"one": 0.85, "two": 0.80, "<three>": 0.60}


def score_table() -> pd.DataFrame:
    rows = [("edge", case, "WT", wt) for case, (wt, _) in EDGE.items()]
    rows += [("edge", case, "ET", et) for case, (_, et) in EDGE.items()]
    rows += [("plain", case, "WT", wt) for case, wt in PLAIN.items()]
    table = pd.DataFrame(rows, columns=["variant", "case", "region", "dice"])
    return table.assign(
        sensitivity=0.8, specificity=0.99, hd95_mm=4.0, truth_voxels=900, predicted_voxels=800
    )


def write_published(folder: Path, text: str = PUBLISHED) -> Path:
    path = folder / "published.csv"
    path.write_text(text)
    return path


def cells(table: pd.DataFrame) -> dict[tuple[str, str, str], pd.Series]:
    return {(line["row"], line["variant"], line["region"]): line for _, line in table.iterrows()}
