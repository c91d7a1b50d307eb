"""An owner on the container: a repository in a directory, and boards that follow it."""

from pathlib import Path

from tests.service.board import PROGRAM, STATE
from tests.service.container import Container

HERE = "/srv/fleet"
NAME = "digits"
# Another repository, other keys: the state of the shipped settings stays as it was.
FLEET_STATE = f"{STATE}/fleet"
STEADY = """
state_dir = "{state}"
[[pipeline]]
name = "digits"
model = "digits"
source = {{kind = "files", path = "{stream}", array = "images", loop = true, \
memory = true, rate = {rate}}}
sinks = [{{kind = "count"}}]
[update]
repository = "{here}/repository"
root = "{here}/root.json"
poll_s = 1.0
[local]
listen = "127.0.0.1:{port}"
socket = "{socket}"
"""


class Owner:
    """Packs the demo's two models, and publishes one after the other.

    Args:
        machine: Where the agent is installed; the repository lies there as well.
    """

    def __init__(self, machine: Container) -> None:
        self._machine = machine
        found = machine.root.glob("opt/tinyward/*/lib/python3*/site-packages/agent")
        assets = next(iter(sorted(found))) / "demo" / "assets"
        self._assets = f"/{assets.relative_to(machine.root)}"
        self.secret = f"{HERE}/passphrase"

    def found(self) -> None:
        """Make the repository with both bundles, the first one assigned to all."""
        folder = self._machine.root / HERE.lstrip("/")
        folder.mkdir(mode=0o755)
        (folder / "passphrase").write_text("of a test\n", encoding="ascii")
        bundles = [f"{HERE}/{NAME}-{version}.bundle" for version in (1, 2)]
        for version, bundle in enumerate(bundles, start=1):
            pack = f"{self._assets}/{NAME}-{version}/pack.toml"
            self._tinyward("pack", pack, "-o", bundle)
        self._repo("init", "--passphrase-file", self.secret)
        self._repo("add", *bundles)
        self.publish(1)
        root = folder / "repository" / "metadata" / "1.root.json"
        (folder / "root.json").write_bytes(root.read_bytes())

    def publish(self, version: int) -> None:
        """Tell all boards to run a version."""
        self._repo("assign", "group:all", f"{NAME}={version}")
        self._repo("publish", "--passphrase-file", self.secret)

    def settings(
        self,
        *,
        rate: float = 200.0,
        state: str = FLEET_STATE,
        socket: str = f"{STATE}/control.sock",
        port: int = 9797,
    ) -> str:
        """Return settings of a board that follows; rate 0 is as fast as it can."""
        stream = f"{self._assets}/digits-stream.npz"
        return STEADY.format(
            state=state, stream=stream, rate=rate, here=HERE, port=port, socket=socket
        )

    def _repo(self, verb: str, *words: str) -> None:
        """Run ``tinyward repo`` on the repository."""
        self._tinyward("repo", verb, f"{HERE}/repository", *words)

    def _tinyward(self, *words: str) -> None:
        """Run the installed command."""
        self._machine.run(Path(PROGRAM), *words)
