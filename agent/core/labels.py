"""Naming the counts of answers by label, as metrics and pages show them.

>>> label_counts(("cat", "dog"), (3, 0, 1, 2))
{'cat': 3, '2': 1, 'other': 2}
"""

from collections.abc import Sequence

OTHER = "other"


def label_counts(labels: Sequence[str], words: Sequence[int]) -> dict[str, int]:
    """Return label -> answers, of labels that were ever answered.

    Labels that share a word are summed: two series of one name would void a scrape.

    Args:
        labels: Names of the words; a word without a name goes by its number.
        words: Counts as in a section of the statistics block; the last one counts all
            labels beyond the others.
    """
    named: dict[str, int] = {}
    for index, count in enumerate(words):
        if count:
            label = _label(labels, index, last=index == len(words) - 1)
            named[label] = named.get(label, 0) + count
    return named


def _label(labels: Sequence[str], index: int, *, last: bool) -> str:
    """Name one word: its label, its number without one, or ``other``."""
    if last:
        return OTHER
    return labels[index] if index < len(labels) else str(index)
