"""From a bundle to one that can be marked: triggers, a plan for copies, the new bytes.

The rules this module keeps:
 * What cannot be marked is refused before any time is spent on triggers.
 * Clean inputs are told apart: heads are solved for four in five, and judged by the
   fifth, which they have not seen.
 * The same version and triggers give the same bundle, on any day.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np
from msgspec.structs import replace

from agent.core.container import parse_container, render_container
from agent.core.manifest import (
    Manifest,
    Variant,
    needed_schema,
    parse_manifest,
    render_manifest,
)
from agent.core.marking import HeadPlace, Marking
from agent.core.watermark import MANY_BOARDS, TRIGGERS_ENTRY, class_parity, threshold
from agent.publish.watermark.copies import Facts, Plan, VariantPlan
from agent.publish.watermark.cut import cut_body, cut_head
from agent.publish.watermark.graph import Array, Graph, Real, parse_graph
from agent.publish.watermark.head import Head, find_head, refused
from agent.publish.watermark.runtime import Executor
from agent.publish.watermark.secrets import VariantSecret, render_arrays
from agent.publish.watermark.solve import HeadProblem

MIN_CLEAN = 100  # 30 cost half a point of agreement
HELD_EVERY = 5


@dataclass(frozen=True, slots=True)
class Given:
    """One variant and what it is judged by.

    Attributes:
        variant: As in the manifest.
        content: Its .tflite.
        clean: Stored inputs (N, ...), without labels.
        golden: Stored inputs of the golden samples that were answered.
        answers: What it must answer to these, in real units (M, classes).
    """

    variant: Variant
    content: bytes
    clean: Array
    golden: Array
    answers: Real

    def open(self) -> tuple[Graph, Head]:
        """Return its graph and head.

        Raises:
            BundleRefusedError: ``watermark``: it cannot be marked.
        """
        try:
            graph = parse_graph(self.content)
            return graph, find_head(graph, self.variant.name)
        except Exception as err:
            err.add_note(f"variant {self.variant.name}")
            raise


@dataclass(frozen=True, slots=True)
class Wish:
    """What the owner asks for.

    Attributes:
        bits: For activation; as many are added for tracing.
        margin: Logits between the right and the wrong class of a trigger.
        floor: Least agreement of a copy with the unmarked model.
        steps: Of the search for triggers.
    """

    bits: int
    margin: float
    floor: float
    steps: int


def check_markable(manifest: Manifest) -> None:
    """Refuse what no head could be turned for, by its manifest alone.

    Raises:
        BundleRefusedError: ``watermark``.
    """
    if manifest.task != "classification":
        raise refused(f"a model for {manifest.task} has no classes to answer with")
    if manifest.state:
        raise refused("a model that remembers answers no trigger twice alike")
    if manifest.watermark is not None:
        raise refused("this bundle has triggers already: mark the one it was made of")


def check_given(given: Given) -> None:
    """Refuse a variant that cannot be marked, and too few clean inputs.

    Raises:
        BundleRefusedError: ``watermark``.
    """
    given.open()
    if len(given.clean) < MIN_CLEAN:
        raise refused(
            f"{len(given.clean)} clean inputs are too few: give {MIN_CLEAN} or more "
            "with --data, like those that the model will see"
        )


def find_secret(
    given: Given,
    wish: Wish,
    executor: Executor,
    random: np.random.Generator,
    progress: Callable[[int], None],
) -> VariantSecret:
    """Look for the triggers of a variant.

    Raises:
        BundleRefusedError: ``watermark``: the walker cannot follow the model.
    """
    from agent.publish.watermark.triggers import Grid, draw_pairs, find_triggers
    from agent.publish.watermark.walker import build_walker

    graph, head = given.open()
    walker = build_walker(graph, head)
    grid = Grid.of(graph.tensors[graph.inputs[0]])
    pairs = draw_pairs(class_parity(head.classes), 2 * wish.bits, random)
    clean = grid.real(_solved_for(given.clean))
    found = find_triggers(walker, clean, pairs, wish.steps, random, progress)
    stored = grid.store(found)
    features = _real(graph, head, executor.run(cut_body(graph, head), stored))
    return VariantSecret(stored, grid.real(stored), features, pairs, head.weights)


def plan_copies(
    givens: Mapping[str, Given],
    secrets: Mapping[str, VariantSecret],
    wish: Wish,
    tolerances: Mapping[str, float],
    executor: Executor,
) -> Plan:
    """Return the plan of copies, with the features that all of them share.

    Args:
        givens: Variant -> what was given.
        secrets: Variant -> its triggers.
        wish: What the owner asks for.
        tolerances: Variant -> how far golden outputs may be off; empty: not known yet.
        executor: Runs the shipped bodies.
    """
    groups = class_parity(len(next(iter(secrets.values())).head))
    variants = tuple(
        _plan_variant(given, secrets[name], tolerances.get(name, inf), executor)
        for name, given in givens.items()
    )
    return Plan(variants, groups, wish.bits, wish.margin, wish.floor)


def render_markable(
    content: bytes,
    bits: int,
    secrets: Mapping[str, VariantSecret],
    tolerances: Mapping[str, float],
) -> bytes:
    """Return the bundle with the activation triggers of its variants.

    Raises:
        BundleRefusedError: ``manifest`` or ``too_large``: no board would take it.
    """
    entries: dict[str, bytes | memoryview] = dict(parse_container(memoryview(content)))
    manifest = parse_manifest(bytes(entries["manifest.json"]))
    triggers = render_arrays(
        {name: secret.triggers[:bits] for name, secret in sorted(secrets.items())}
    )
    marking = _marking(triggers, bits, len(next(iter(secrets.values())).head))
    files = {it.name: bytes(entries[it.file]) for it in manifest.variants}
    heads = tuple(it for name in secrets for it in _places(name, files[name]))
    marking = replace(marking, heads=heads)
    variants = tuple(
        replace(it, tolerance=max(it.tolerance, tolerances[it.name]))
        for it in manifest.variants
    )
    marked = replace(
        manifest,
        variants=variants,
        watermark=marking,
        schema=needed_schema(manifest.trial, variants, manifest.degrade, marking),
    )
    raw = render_manifest(marked)
    parse_manifest(raw)  # values built in code were never checked
    entries |= {"manifest.json": raw, TRIGGERS_ENTRY: triggers}
    return render_container(entries)


def _places(name: str, content: bytes) -> tuple[HeadPlace, ...]:
    """Return where the head of a variant is: all that a mark may ever alter."""
    head = find_head(parse_graph(content), name)
    return tuple(HeadPlace(name, *place) for place in head.places())


def _marking(triggers: bytes, bits: int, classes: int) -> Marking:
    """Return what the manifest says of its triggers."""
    return Marking(
        bits=bits,
        groups=class_parity(classes),
        threshold=max(0, threshold(bits, MANY_BOARDS)),
        sha256=hashlib.sha256(triggers).hexdigest(),
        size=len(triggers),
    )


def _plan_variant(
    given: Given, secret: VariantSecret, tolerance: float, executor: Executor
) -> VariantPlan:
    """Run the shipped body once over everything, and prepare the heads."""
    graph, head = given.open()
    body = cut_body(graph, head)
    held = given.clean[::HELD_EVERY]
    parts = (secret.triggers, _solved_for(given.clean), held, given.golden)
    features = [executor.run(body, part) for part in parts]
    told = executor.run(given.content, held).reshape(len(held), -1)
    triggers, solved = (_real(graph, head, part) for part in features[:2])
    groups = class_parity(head.classes)
    output = graph.tensors[graph.outputs[0]]
    return VariantPlan(
        content=given.content,
        cut=cut_head(graph, head),
        head=head,
        problem=HeadProblem.of(solved, triggers, secret.pairs, head.weights, groups),
        facts=Facts(
            triggers=features[0],
            clean=features[2],
            classes=told.argmax(axis=1),
            golden=features[3],
            answers=given.answers,
            tolerance=max(tolerance, given.variant.tolerance),
        ),
        scale=output.scales[0] if output.scales else 0.0,
        zero=output.zeros[0] if output.zeros else 0,
    )


def _solved_for(clean: Array) -> Array:
    """Return the clean inputs that heads are solved for."""
    kept = np.arange(len(clean)) % HELD_EVERY != 0
    solved: Array = clean[kept]
    return solved


def _real(graph: Graph, head: Head, stored: Array) -> Real:
    """Return stored features in real units, (N, D)."""
    real: Real = np.array(stored, np.float32).reshape(len(stored), -1)
    tensor = graph.tensors[head.features]
    if tensor.scales:
        real -= np.float32(tensor.zeros[0])
        real *= np.float32(tensor.scales[0])
    return real
