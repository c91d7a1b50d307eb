"""What is promised under which attack and which fault, with the tests behind each line.

The numbers are those in the names of the tests: ``test_14_...`` is one of line 14. A
line without a test fails ``test_readme``, and so does a number without a line.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
_NAMED = re.compile(r"^ *(?:async )?def test_((?:\d{1,2}[a-z]?_)+)\w", re.MULTILINE)

PROMISES: Mapping[str, tuple[str, str]] = {
    "1": ("bundle or metadata signed by a stranger", "refused: `signature`"),
    "2": ("bytes of a bundle changed", "refused: `digest`; nothing of it is parsed"),
    "3": ("a bundle that does not end", "left at its signed length: `length`"),
    "4": ("a bundle cut short", "refused: `length`; what came is resumed"),
    "5": ("metadata without end", "left at the role's own limit: `too_large`"),
    "6": ("too few signatures, or one twice", "refused: `threshold`, `metadata`"),
    "7": ("a new root signed by the new or the old keys only", "refused"),
    "8": ("a root version left out", "refused"),
    "9": ("an old root again", "refused: `replayed`"),
    "10": ("hundreds of root rotations while the board was off", "followed, all"),
    "11": ("an older timestamp", "refused: `replayed`"),
    "12": ("an older snapshot", "refused: `replayed`"),
    "13": ("older targets, or a role left out", "refused: `replayed`, `metadata`"),
    "14": (
        "a rollback after the metadata cache was lost",
        "refused: floors lie elsewhere, in state.db",
    ),
    "15": ("one version, two contents", "the second is `mixed`, or changes nothing"),
    "16": ("metadata of two publications mixed", "refused: `mixed`"),
    "17": (
        "a stolen timestamp key that jumps to version 2^31",
        "boards recover when root replaces the key: the floor goes with it",
    ),
    "18": ("expired metadata", "refused: `expired`; the model runs on"),
    "19": (
        "the same valid metadata for ever",
        "`expired` in the end; its age is a metric before, with an alert",
    ),
    "20": (
        "an expired repository and a clock in 1970",
        "refused: the clock has a floor",
    ),
    "21": ("a clock in 2038", "updates stop meanwhile, the model runs on"),
    "22": ("a clock that steps back", "revives nothing, locks nobody out"),
    "23": (
        "a forged issue time; one of 2099 by a stolen key",
        "unsigned: refused; signed: bounded, and gone with the key",
    ),
    "24": ("roles in circles, or with names that are paths", "refused, kept inside"),
    "25": ("targets and ids that are paths", "never leave their folder"),
    "26": ("a role that signs for another's models", "not believed"),
    "27": ("key types that do not fit", "refused: `signature`, `metadata`"),
    "28": ("unknown fields, a later specification", "read as TUF says"),
    "29": ("metadata that is no JSON, too deep, too long", "refused: `metadata`"),
    "30": ("edits that change no parsed value", "never read from raw bytes"),
    "31": ("stolen online keys", "add no bundle, revoke nothing"),
    "32": ("one of two release keys stolen", "signs nothing alone"),
    "33": ("what a revoked key signed", "not believed any more"),
    "34": (
        "the active model revoked",
        "previous, else factory, else no answers: `revoked`",
    ),
    "35": (
        "a hostile orchestrator",
        "chooses among admissible versions, and can do nothing else",
    ),
    "36": ("a version below the floor, or with other bytes", "`version_floor`"),
    "37": ("other hardware, a newer agent, more memory", "refused before a byte comes"),
    "38": (
        "wrong golden outputs, NaN, slow, failing",
        "refused or rolled back, and set aside by digest",
    ),
    "39": ("a model that kills its process at load", "three attempts, counted durably"),
    "40": ("a damaged model that was signed", "dies in a child, the board does not"),
    "41": ("an old model under a higher version", "admitted: that is a downgrade"),
    "42": ("certificates: none, foreign, expired, another's", "not let in"),
    "43": ("TLS 1.2, plain HTTP, redirects", "refused: `tls`, `redirect`"),
    "44": (
        "silent, stalled, half-sent and dripping clients",
        "cut; an operator is served meanwhile",
    ),
    "45": ("a server of a byte a second", "left in time: `too_slow`"),
    "46": ("stalls, resets, wrong lengths", "resumed where it stopped"),
    "47": ("a resume that is answered wrongly", "begun again"),
    "48": ("403, 404, 429, 5xx", "no endless loop; Retry-After is honoured"),
    "49": ("a captive portal", "refused; what came before is kept"),
    "50": ("no DNS, black holes, proxies of the environment", "`unreachable`; unused"),
    "51": ("doorbells replayed, or by the hundred", "one look"),
    "52": ("bodies too large, or without end", "cut before memory"),
    "53": ("uploads with names that are paths, sparse, a million", "refused"),
    "54": (
        "an orchestrator that writes nonsense: fields, links, times",
        "refused: `protocol`; asked again in time, and the model runs on",
    ),
    "55": (
        "an order cancelled before, while and after it is carried out",
        "withdrawn at any stage before the commit, told so after it",
    ),
    "56": (
        "an order replaced while it is fetched, or closed behind the board's back",
        "the new one is carried out; what nobody waits for is not told",
    ),
    "57": (
        "reports to an orchestrator that are lost, or taken twice",
        "kept on disk until they are taken; nothing is installed twice",
    ),
    "58": (
        "a closed maintenance window; a download that may not be tried yet",
        "fetched and verified early where that is allowed, tried later",
    ),
    "59": (
        "a power cut between the commit and its report",
        "reported once after the restart, and not installed again",
    ),
    "60": ("`kill -9` at every mutating call", "a whole, signed model; floors stand"),
    "61": ("a full disk, once or from then on", "nothing lost; goes on with room"),
    "62": ("a disk that cannot write or sync", "no second sync is trusted"),
    "63": ("power cut, unsynced bytes lost", "as 60; one fsync less is caught"),
    "64": ("power cut on ext4, three sets of mount options", "as 60"),
    "65": ("read-only, out of inodes or descriptors", "a reason, nothing lost"),
    "66": ("bit rot in models or state.db", "fallback; rebuilt from a sealed copy"),
    "67": ("planted links, pipes, second names", "replaced, never followed"),
    "68": ("two agents on one state", "the second one is refused: `locked`"),
    "69": ("stops and deaths in every phase", "rolled back; repeated: set aside"),
    "70": ("a disk slower than a watchdog", "the loop answers on"),
    "71": ("state.db of a newer agent", "left alone: `state`"),
    "72": (
        "deltas: another base or pair, bombs, longer, shorter, cut, flipped",
        "told, and all of the bundle is fetched instead; never a refused update",
    ),
}


def numbered_tests() -> Mapping[str, dict[str, int]]:
    """Return number -> file -> how many tests carry it in their names."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted(TESTS.rglob("test_*.py")):
        for match in _NAMED.finditer(path.read_text(encoding="utf-8")):
            for number in _numbers(match[1]):
                found[number][path.relative_to(TESTS.parent).as_posix()] += 1
    return found


def render_promises() -> str:
    """Render the README's table."""
    found = numbered_tests()
    lines = ["| no. | under | promised | tests |", "| --- | --- | --- | --- |"]
    for number, (under, promised) in PROMISES.items():
        files = ", ".join(f"`{path.removeprefix('tests/')}`" for path in found[number])
        lines.append(f"| {number} | {under} | {promised} | {files} |")
    return "\n".join(lines) + "\n"


def _numbers(prefix: str) -> Iterator[str]:
    """Yield the lines that a name begins with: ``60_61_`` are two of them."""
    for word in prefix.strip("_").split("_"):
        yield str(int(word.rstrip("abcdefghijklmnopqrstuvwxyz")))
