"""What can be known before a rollout begins: by its files, and by a look at the boards.

The rules this module keeps:
 * Boards are only looked at; a slip of the operator's is found before a state file is
   there, which would be in the way of the next command.
 * A board that does not answer is no slip: the rollout's gate judges it later.
 * Metadata is read without being verified: boards verify, and believe nobody.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from agent.cli.board_answers import State
from agent.cli.board_link import BoardLink
from agent.cli.delivery import MAX_METADATA_BYTES, PUSH
from agent.cli.fleet_threads import broken_off
from agent.cli.plain_text import plain
from agent.cli.slice_choice import find_listed
from agent.cli.slice_files import Slice
from agent.core.reasons import Reason
from agent.core.targets import (
    REVOKED_PATH,
    GroupFile,
    Revocations,
    bundle_path,
    group_path,
)
from agent.core.waves import Wave
from agent.core.waves_draw import GROUP
from agent.errors import AgentError, SettingsError

LOOKERS = 32  # a thousand boards that take 100 ms each are asked within 4 s
LOOK_S = 15.0  # to connect takes 10 s at most: who says nothing until then is silent
Assign = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What boards said before a rollout began.

    Attributes:
        states: Of those that answered.
        silent: Those that did not, in their order.
    """

    states: Mapping[str, State] = field(default_factory=dict)
    silent: Sequence[str] = ()


def look_around(
    links: Mapping[str, BoardLink], end: Callable[[], None], wait_s: float = LOOK_S
) -> FirstLook:
    """Ask all boards once how they are.

    Args:
        links: By board; nobody else may use them.
        end: Ends what the threads that are left wait for.
        wait_s: Who has not answered by then is silent.
    """
    pool = ThreadPoolExecutor(min(LOOKERS, max(1, len(links))))
    try:
        with broken_off(links.values()):
            asked = {name: pool.submit(_ask, link) for name, link in links.items()}
            wait(asked.values(), wait_s)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        end()
    answers = {
        name: it.result() if it.done() and not it.cancelled() else None
        for name, it in asked.items()
    }
    states = {name: it for name, it in answers.items() if it is not None}
    return FirstLook(states, [name for name in links if name not in states])


def check_boards(look: FirstLook, assign: Assign, orchestrator: str) -> None:
    """Check that boards take our orders, and have the pipelines.

    Args:
        look: What they said.
        assign: Pipeline -> (model, version).
        orchestrator: Whose orders boards have to take.

    Raises:
        SettingsError: ``not_orchestrator`` or ``unknown_pipeline``.
    """
    others = {
        name: said
        for name, state in look.states.items()
        if (said := state.update.orchestrator or orchestrator) != orchestrator
    }
    if others:
        name, said = next(iter(others.items()))
        raise SettingsError(
            f"{_some(list(others))}: {name} takes its orders from {said!r}, not from "
            f"{orchestrator!r}",
            reason=Reason.NOT_ORCHESTRATOR,
            todo="Leave such boards out of the inventory, or use "
            + ("--by-percent." if orchestrator == PUSH else "no --by-percent."),
        )
    for pipeline in assign:
        known = {name for state in look.states.values() for name in state.pipelines}
        if look.states and pipeline not in known:
            raise SettingsError(
                f"no board that answers has a pipeline {pipeline!r}; they have: "
                f"{', '.join(sorted(known)) or 'none'}",
                reason=Reason.UNKNOWN_PIPELINE,
                todo="Write it as the boards' agent.toml does.",
            )


def check_slice(files: Slice, assign: Assign, look: FirstLook) -> None:
    """Check that a slice lists what boards shall run, and does not revoke it.

    Raises:
        SettingsError: ``missing_target`` or ``revoked``.
    """

    def read(path: str) -> bytes:
        if files.sizes[path] > MAX_METADATA_BYTES:
            raise LookupError(path)
        return files.read(path, 0, MAX_METADATA_BYTES)

    try:
        listed = find_listed(files.sizes, read)
        place = listed.get(REVOKED_PATH, ("", ""))[1]
        raw = read(place) if place in files.sizes else b"{}"
        revoked = msgspec.json.decode(raw, type=Revocations).bundles
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, LookupError):
        return  # boards refuse it with words of their own
    for model, version in sorted(_wanted(assign, look)):
        digest = listed.get(bundle_path(model, version), ("", ""))[0]
        if not digest:
            raise SettingsError(
                f"the repository does not list {model} {version}",
                reason=Reason.MISSING_TARGET,
                todo="Add and publish it first: `tinyward repo add`, `publish`.",
            )
        if digest in revoked:
            raise SettingsError(
                f"the repository revoked {model} {version}",
                reason=Reason.REVOKED,
                todo="Roll out a version that is not.",
            )


def check_role(certificate: Path | None) -> None:
    """Check that a certificate may tell boards something, as far as it says.

    Raises:
        SettingsError: ``role``: it is an observer's or a scraper's.
    """
    from cryptography.x509 import (
        ExtensionNotFound,
        SubjectAlternativeName,
        UniformResourceIdentifier,
        load_pem_x509_certificate,
    )

    from agent.core.certificates import role_of

    if certificate is None:
        return
    try:
        own = load_pem_x509_certificate(certificate.read_bytes())
        names = own.extensions.get_extension_for_class(SubjectAlternativeName).value
    except (OSError, ValueError, ExtensionNotFound):
        return  # told of when it is used
    role = role_of(names.get_values_for_type(UniformResourceIdentifier))
    if role and role != "operator":
        raise SettingsError(
            f"{certificate}: its role is {role}, which may tell boards nothing",
            reason=Reason.ROLE,
            todo="Name an operator's with --cert: `tinyward ca issue --help`.",
        )


def find_strays(
    look: FirstLook,
    waves: Sequence[Wave],
    group: str,
    files: Mapping[str, GroupFile],
    pipelines: Sequence[str],
) -> Iterator[str]:
    """Say which boards go by another file than their wave, as far as they say.

    A note and no error: a board that has not looked yet speaks of the file of before.

    Args:
        look: What they said.
        waves: Those of the rollout.
        group: By whose file the shares go.
        files: Published group files, by group.
        pipelines: Those that are assigned.
    """
    groups = group_path("")
    for wave in waves:
        own = wave.name.removeprefix(GROUP) if wave.name.startswith(GROUP) else group
        file = files.get(own)
        # Without a file yet, no board can say that it would follow it.
        spoken = [it for it in pipelines if file is not None and it in file.pipelines]
        for board in wave.boards:
            state = look.states.get(board)
            decisions = state.decisions() if state is not None else {}
            sources = [decisions[it].source for it in spoken if it in decisions]
            others = [it for it in sources if it not in {"", group_path(own)}]
            if others:
                yield (
                    f"{board} does not follow group:{own}: it goes by "
                    f"{plain(others[0].replace(groups, 'group:'), 80)} "
                    "([update] groups of its agent.toml)"
                )


def _ask(link: BoardLink) -> State | None:
    """Return how a board is; None where it does not say."""
    try:
        return link.state()
    except AgentError:
        return None
    finally:
        link.close()


def _wanted(assign: Assign, look: FirstLook) -> set[tuple[str, int]]:
    """Return the versions that are assigned, with the models of the boards."""
    wanted: set[tuple[str, int]] = set()
    for pipeline, (model, version) in assign.items():
        if model:
            wanted.add((model, version))
            continue
        for state in look.states.values():
            if pipeline in state.pipelines:
                wanted.add((state.pipelines[pipeline].model, version))
    return wanted


def _some(names: Sequence[str]) -> str:
    """Return how many boards, and the first of them."""
    count = "1 board" if len(names) == 1 else f"{len(names)} boards"
    return f"{count} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
