"""Updates: tasks that wait for a new desired state and carry it out.

The rules this folder keeps:
 * What is decided is decided in ``agent.core`` (the machine's table, admission, the
   plan); here it is waited for, performed, counted and logged.
 * One update at a time, and every phase is saved before its actions begin.
 * Errors are expected and remembered; the same refusal is not asked for again until
   something changed, and nothing is asked for faster than ``poll_s``.
 * Repositories, store, trials and clocks come in as arguments (``needs``).
"""

from agent.update.desk import Desk
from agent.update.needs import Supply, Surroundings
from agent.update.poller import UpdatePoller

__all__ = ["Desk", "Supply", "Surroundings", "UpdatePoller"]
