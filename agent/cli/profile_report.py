"""The report of a profile: one HTML file that needs nothing else.

The rules this module keeps:
 * No script, no reference to anything outside, and a content policy that says so.
 * Names come from models and data of strangers: they are escaped.
 * Nothing of the data is in it that is not in the profile, but the course of scores.
 * No time and no place: the same profile gives the same bytes.
"""

from html import escape
from pathlib import Path

from agent.cli.bundle_view import count_of, render_size
from agent.cli.profile_charts import histogram, number, score_chart
from agent.cli.profile_delays import PATIENCE
from agent.cli.profile_making import Made, MadeVariant
from agent.cli.profile_report_delays import delay_cards

STYLE = Path(__file__).with_name("profile_report.css")
SCOPES = {
    "input": "input features",
    "output": "confidence of answers",
    "all": "all together",
}
MEANINGS = {
    "grouped": "thresholds hold for sources that the reference has not seen",
    "ordered": "on a recording in order, source by source",
    "iid": "on samples alone: other devices may raise false alarms",
    "table": "from a table: not calibrated on these data",
}
MAX_CLASSES = 64  # bars of answers; what lies beyond is told as one number


def render(made: Made) -> str:
    """Return the whole page."""
    manifest = made.manifest
    name = f"{manifest.model} {manifest.version}"
    title = f"Reference profile of {name}"
    version = f" ({manifest.version_name})" if manifest.version_name else ""
    several = len(made.variants) > 1
    sections = "".join(_section(one, several=several) for one in made.variants)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title>"
        f"<style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n<body><main>"
        f"<header><h1>{escape(title + version)}</h1>"
        '<p class="lede">How the model\'s input and output look while all is well, '
        "seen on held-out data. A board compares what it sees with this, and raises an "
        "alarm when it has moved further than sources that are known to be fine.</p>"
        f"{_navigation(made)}</header>\n{sections}{_footer(made)}</main></body></html>\n"
    )


def _navigation(made: Made) -> str:
    """Return links to the variants, if there are several."""
    if len(made.variants) == 1:
        return ""
    links = "".join(
        f'<a href="#{escape(one.variant.name)}">{escape(one.variant.name)}</a>'
        for one in made.variants
    )
    return f'<nav aria-label="Variants">{links}</nav>'


def _section(one: MadeVariant, *, several: bool) -> str:
    """Return everything about one variant."""
    name = escape(one.variant.name)
    heading = f'<h2 id="{name}">Variant {name}</h2>' if several else ""
    return "\n".join(
        [
            f"<section>{heading}",
            _tiles(one),
            _warnings(one),
            _scores(one),
            delay_cards(one),
            _answers(one),
            _features(one),
            _facts(one),
            "</section>",
        ]
    )


def _tiles(one: MadeVariant) -> str:
    """Return the numbers to see first."""
    reference = one.reference
    tiles = {
        "samples": f"{reference.count:,}",
        "groups": f"{reference.groups:,}" if reference.groups else "none",
        "features": str(len(reference.features)),
        "calibration": reference.calibration,
    }
    if reference.accuracy >= 0:
        tiles["accuracy here"] = f"{100 * reference.accuracy:.1f} %"
    inner = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{label}</span></div>'
        for label, value in tiles.items()
    )
    return f'<div class="tiles">{inner}</div>'


def _warnings(one: MadeVariant) -> str:
    """Return what could not be calibrated."""
    if not one.warnings:
        return ""
    rows = "".join(f"<li>{escape(said)}</li>" for said in dict.fromkeys(one.warnings))
    return (
        '<div class="card warnings"><h3>What is not as good as it could be</h3>'
        f"<ul>{rows}</ul></div>"
    )


def _scores(one: MadeVariant) -> str:
    """Return the course of the scores along the held-out data."""
    if not one.paths:
        return ""
    legend = "".join(
        f'<span><i class="{scope}"></i>{SCOPES.get(scope, scope)}</span>'
        for scope in one.paths
    )
    highest = max(float(path.max(initial=0.0)) for path in one.paths.values())
    name = f"Scores along the data; the highest is {number(highest)} thresholds"
    chart = score_chart(one.paths, one.bounds, f"{one.axis} →", name)
    return (
        '<h2>Score along the held-out data</h2><figure class="card">'
        f'<div class="legend">{legend}</div><div class="wide">{chart}</div>'
        "<figcaption>Distance of the last 50 samples or so from the reference, over "
        "the alarm threshold (dashed, at 1). Peaks are sources that differ from the "
        f"others; the highest here is {number(highest)}.</figcaption></figure>"
    )


def _features(one: MadeVariant) -> str:
    """Return a histogram of each feature."""
    opened = one.calibrated.reference
    figures = []
    for at, feature in enumerate(opened.features):
        mean, sd = float(opened.mean[at]), float(opened.sd[at])
        words = f"mean {number(mean)}, sd {number(sd)}"
        if not opened.moving[at]:
            picture = '<p class="note">never moved: not watched</p>'
        else:
            name = f"Histogram of {feature}: {words}"
            picture = histogram(opened.edges[at], opened.counts[at], mean, name)
        figures.append(
            f"<figure><h3>{escape(feature)}</h3>{picture}"
            f"<figcaption>{words}</figcaption></figure>"
        )
    return (
        '<h2>Features</h2><p class="note">Density of the reference between its 16-'
        "quantiles, with the mean. The dashed bins at both ends are open: a profile "
        "holds no minimum and no maximum.</p>"
        f'<div class="features">{"".join(figures)}</div>'
    )


def _answers(one: MadeVariant) -> str:
    """Return how often each class was answered."""
    counts = one.reference.classes
    if not counts or not sum(counts):
        return ""
    most = max(counts)
    rows = "".join(
        f'<tr><th scope="row">{escape(one.label(at))}</th><td><span class="meter" '
        f'style="width:{100 * count / most:.1f}%"></span></td>'
        f'<td class="number">{count:,}</td></tr>'
        for at, count in enumerate(counts[:MAX_CLASSES])
    )
    rest = sum(counts[MAX_CLASSES:])
    more = f'<p class="note">and {rest:,} of other classes</p>' if rest else ""
    return (
        '<h2>Answers</h2><div class="card"><table class="bars tight"><thead><tr>'
        '<th>Label</th><th>Share</th><th class="number">Samples</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>{more}</div>"
    )


def _facts(one: MadeVariant) -> str:
    """Return how it was made."""
    reference, said = one.reference, one.rows.said
    lag = reference.autocorrelation
    rows = [
        ("Variant", f"{one.variant.name}, {render_size(one.variant.size)}"),
        ("SHA-256", f"<code>{one.variant.sha256}</code>"),
        ("Input looked at as", reference.kind),
        ("Samples", _counted(one)),
        ("Groups", str(reference.groups or "not known")),
        (
            "Calibration",
            f"{reference.calibration}: {MEANINGS[reference.calibration]}",
        ),
        ("Neighbours' correlation", number(lag) if lag >= 0 else "not known"),
        ("Thresholds hold up to", f"a correlation of {reference.target:g}"),
        ("Thresholds", _thresholds(reference.thresholds)),
        (
            f"With a site baseline of {reference.site_count:,}",
            _thresholds(reference.site_thresholds),
        ),
    ]
    if reference.confidence >= 0:
        rows.append(("Confidence threshold (ATC)", number(reference.confidence)))
    if said.projection is not None:
        rows.append(("Inner tensor", escape(said.projection.output)))
    inner = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows)
    return f'<h2>How it was made</h2><div class="card"><dl>{inner}</dl></div>'


def _counted(one: MadeVariant) -> str:
    """Return what became of the samples."""
    said = one.rows.said
    parts = [f"{said.samples:,} read", f"{one.reference.count:,} used"]
    if said.failed:
        parts.append(f"{said.failed:,} bad")
    if said.invalid:
        parts.append(f"{said.invalid:,} not finite")
    return ", ".join(parts)


def _thresholds(thresholds: dict[str, float]) -> str:
    """Return thresholds by scope."""
    return ", ".join(
        f"{escape(scope)} {number(value)}" for scope, value in thresholds.items()
    )


def _footer(made: Made) -> str:
    """Return what a profile is and is not."""
    size = render_size(len(made.raw))
    references = count_of(len(made.variants), "reference")
    return (
        f"<footer><p>profile.json: {size}, {references}, for feature code "
        f"{made.profile.features_version}. It holds moments, quantiles, counts and "
        "thresholds: no sample, no minimum and no maximum. Delays are in watched "
        f"samples, and {PATIENCE:,} without an alarm count as not found.</p></footer>"
    )
