"""Deaths are counted on, whatever cannot be read about them."""

import resource

import pytest

from agent.core.reasons import Reason
from agent.settings import SuperviseSettings
from agent.supervise.deaths import Death, Deaths, oom_kills

NO_FILES = (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1])


def killed(deaths: Deaths) -> Death:
    """Return what a worker's end by SIGKILL is counted as."""
    return deaths.judge(-9, hung=False, source=Reason.NONE, unwanted=False, blamed=True)


@pytest.mark.parametrize("blind", ["birth", "death", "both"])
def test_a_death_without_descriptors_is_judged(blind: str) -> None:
    """Where the kernel's count cannot be read nothing is said about memory."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    kills = iter([3, 4] if blind == "both" else [4])

    def read() -> int:
        oom_kills()
        return next(kills)

    deaths = Deaths(SuperviseSettings(), read)
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, limits if blind == "death" else NO_FILES
        )
        deaths.began()
        resource.setrlimit(
            resource.RLIMIT_NOFILE, limits if blind == "birth" else NO_FILES
        )
        death = killed(deaths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert death == Death(Reason.CRASH, with_model=True)


def test_a_kill_for_memory_is_no_fault_of_the_model() -> None:
    """The kernel's count has risen since the worker began."""
    kills = iter([3, 4])
    deaths = Deaths(SuperviseSettings(), lambda: next(kills))
    deaths.began()
    assert killed(deaths) == Death(Reason.OOM)
