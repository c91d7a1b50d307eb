"""What reasons mean, and what to do, where it is about the fleet's server.

The usual words of some reasons speak of the repository; who looks for a server that
does not answer would be sent to the wrong cable by them.
"""

from collections.abc import Mapping
from types import MappingProxyType

from agent.core.explanations import EXPLANATIONS
from agent.core.reasons import Reason

_WORDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        Reason.UNREACHABLE: (
            "The fleet's server does not answer.",
            "Check `fleet.ddi.url`, the server and the network; it is asked again.",
        ),
        Reason.TOO_SLOW: (
            "The fleet's server answers too slowly, and was left.",
            "Check the network and the server's load; it is asked again.",
        ),
        Reason.TLS: (
            "No trusted TLS connection: version, certificate or CA do not fit.",
            "Check `fleet.ddi.ca`, the server's certificate and this board's clock.",
        ),
        Reason.REDIRECT: (
            "The fleet's server sent the board to another address.",
            "Name the final address in `fleet.ddi.url`.",
        ),
        Reason.TOO_LARGE: (
            "The fleet's server says more than a board reads.",
            "Check that `fleet.ddi.url` and `tenant` name a hawkBit-like server.",
        ),
        Reason.RATE_LIMITED: (
            "The fleet's server asks to be left alone for a while.",
            "Nothing, or give it more room: it is asked again when it says.",
        ),
        Reason.PERMISSION: (
            "The token of this board cannot be read.",
            "Correct the file's owner and mode: [fleet.ddi], `chmod 600`.",
        ),
        Reason.CERTIFICATE: (
            "This board's certificate for the fleet's server cannot be used.",
            "Check `fleet.ddi.certificate` and `key`.",
        ),
    }
)


def explain_server(reason: str) -> tuple[str, str]:
    """Return what a reason means of the fleet's server, and what to do about it.

    >>> explain_server("unreachable")[0], explain_server("of a newer board")
    ("The fleet's server does not answer.", ('', ''))
    """
    if reason in _WORDS:
        return _WORDS[reason]
    usual = (words for known, words in EXPLANATIONS.items() if known == reason)
    words = next(usual, None)
    return (words.what, words.todo) if words else ("", "")
