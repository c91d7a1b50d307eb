"""Lets rauc-hawkbit's DDI client do what a line of standard input says, and tells.

Runs in a Python of its own, which has ``rauc_hawkbit`` and nothing of ours. A line is
JSON: a list of a word and its arguments; the answer is ``{"got": ...}``, or
``{"error": ...}`` with what the client raised.

Arguments: host and port, token, tenant, controller.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from rauc_hawkbit.ddi import (  # type: ignore[import-not-found]  # in its own venv
    cancel_action,
    client,
    deployment_base,
)

Client = Any  # rauc_hawkbit says nothing about types


async def poll(ddi: Client) -> object:
    """Ask whether anything is to be done."""
    found: object = await ddi()
    return found


async def configure(ddi: Client, attributes: dict[str, str]) -> object:
    """Tell the server what this board is."""
    execution = client.ConfigStatusExecution.closed
    result = client.ConfigStatusResult.success
    await ddi.configData(execution, result, **attributes)
    return None


async def deployment(ddi: Client, number: str, stamp: str) -> object:
    """Read an order."""
    found: object = await ddi.deploymentBase[number](stamp)
    return found


async def feedback(ddi: Client, number: str, execution: str, result: str) -> object:
    """Tell how an order stands."""
    await ddi.deploymentBase[number].feedback(
        deployment_base.DeploymentStatusExecution[execution],
        deployment_base.DeploymentStatusResult[result],
        [f"said {execution}"],
    )
    return None


async def cancel(ddi: Client, number: str) -> object:
    """Read what has to stop."""
    found: object = await ddi.cancelAction[number]()
    return found


async def cancelled(ddi: Client, number: str, execution: str, result: str) -> object:
    """Tell what a cancel came to."""
    await ddi.cancelAction[number].feedback(
        cancel_action.CancelStatusExecution[execution],
        cancel_action.CancelStatusResult[result],
    )
    return None


async def artifacts(ddi: Client, module: str) -> object:
    """Read which files a module has."""
    found: object = await ddi.softwaremodules[module].artifacts()
    return found


async def download(ddi: Client, module: str, name: str) -> object:
    """Fetch a file into the current folder; return the MD5 of what came."""
    md5: object = await ddi.softwaremodules[module].artifacts[name](f"./{name}")
    return md5


WORDS: dict[str, Callable[..., Awaitable[object]]] = {
    word.__name__: word
    for word in (
        *(poll, configure, deployment, feedback, cancel, cancelled),
        *(artifacts, download),
    )
}


async def obey(host: str, token: str, tenant: str, controller: str) -> None:
    """Read lines and answer them until there are none."""
    async with aiohttp.ClientSession() as session:
        tls = False
        ddi = client.DDIClient(session, host, tls, token, tenant, controller)
        for line in sys.stdin:
            word, *arguments = json.loads(line)
            try:
                said: dict[str, object] = {"got": await WORDS[word](ddi, *arguments)}
            except client.APIError as err:
                said = {"error": str(err)}
            sys.stdout.write(json.dumps(said) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(obey(*sys.argv[1:]))
