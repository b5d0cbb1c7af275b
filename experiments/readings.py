"""The other readings of what a paper leaves open: `<paper>/readings.py` declares them."""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_medseg.recipe import Changes
from keras_medseg.runs.experiment import Profile


@dataclass(frozen=True)
class Alternative:
    """Another reading of one or more entries of the ledger that are "chosen".

    Attributes:
        entries: their ids. One switch of the code may change several at once.
        ours: the reading of the recipe, in a few words.
        other: this one.
        changes: to the recipe.
    """

    entries: tuple[str, ...]
    ours: str
    other: str
    changes: Changes


@dataclass(frozen=True)
class Readings:
    """What `python -m experiments.sensitivity` varies of a paper, one reading at a time.

    Attributes:
        own: the variant of the recipe's own readings.
        region: that is scored.
        cases: number of synthetic cases.
        size: of a case, as `Phantom.size`; None: that of the experiment's phantom.
        small: changes to the recipe for all variants, so that a training takes about a minute.
        why_small: what a reader must know of them.
        alternatives: variant -> the reading that it changes.
        not_varied: id of every other chosen entry -> why it is not varied.
    """

    own: str
    region: str
    cases: int
    size: tuple[int, ...] | None
    small: Changes
    why_small: str
    alternatives: Mapping[str, Alternative]
    not_varied: Mapping[str, str]

    @property
    def profile(self) -> Profile:
        """The recipe's own readings and each alternative, compared with them."""
        others = {name: one.changes for name, one in self.alternatives.items()}
        pairs = tuple((self.own, name) for name in others)
        return Profile(self.small, {self.own: {}, **others}, pairs)
