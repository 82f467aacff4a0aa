"""How the records of a stage become batches: plain, packed into rows, or as pairs of answers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from vargpt_lightning.data.loading.collate import Collator
from vargpt_lightning.data.loading.examples import Example, ExampleMaker
from vargpt_lightning.data.loading.packed import PackedCollator
from vargpt_lightning.data.loading.pairs import PairCollator, PairMaker
from vargpt_lightning.data.mixing.mixture import SkippedRecord
from vargpt_lightning.data.shards.dataset import ShardDataset
from vargpt_lightning.data.shards.records import DRAWN, PAIR
from vargpt_lightning.recipe.heads import PAIRED
from vargpt_lightning.recipe.stage import Stage
from vargpt_lightning.utils.errors import UserError


def maker_of(stage: Stage, examples: ExampleMaker) -> ExampleMaker | PairMaker:
    """Return what makes a record of the stage an example, or a pair of them."""
    return PairMaker(examples) if stage.head in PAIRED else examples


def collator_of(stage: Stage, pad_id: int, row_tokens: int) -> Collator | PackedCollator | PairCollator:
    """Return what puts them together; of packed rows each has `row_tokens`."""
    if stage.head in PAIRED:
        return PairCollator(pad_id)
    return PackedCollator(pad_id, row_tokens) if stage.packing else Collator(pad_id)


def first_examples(name: str, corpus: ShardDataset, make: ExampleMaker, count: int) -> list[Example]:
    """Return examples of records spread over a corpus, at most `count`; those that cannot be used are left out.

    Raises:
        UserError: there is none.
    """
    found: list[Example] = []
    for place in range(0, len(corpus), max(1, len(corpus) // count)):
        with contextlib.suppress(SkippedRecord):
            found.append(make(corpus[place].chosen))
    if not found:
        raise UserError(f"{name}: none of its {len(corpus)} records can be used")
    return found[:count]


def check_records(stage: Stage, corpora: Mapping[str, ShardDataset]) -> None:
    """Refuse corpora whose records lack what a stage compares: a rejected answer, or a drawn picture."""
    for name, corpus in corpora.items():
        if stage.head == "cca" and corpus.index["pictures"][DRAWN] < len(corpus):
            raise UserError(
                f"stages.{stage.name}.data: the {len(corpus):,} records of {name!r} have "
                f"{corpus.index['pictures'][DRAWN]:,} drawn pictures; expected one in each, for the head {stage.head}"
            )
        lacking = len(corpus) - corpus.index["kinds"].get(PAIR, 0)
        if stage.head in PAIRED and lacking:
            raise UserError(
                f"stages.{stage.name}.data: {lacking:,} of the {len(corpus):,} records of {name!r} have no rejected "
                f"answer; expected pairs, rows with chosen and rejected, for the head {stage.head}"
            )
