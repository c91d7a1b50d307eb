"""What a board keeps of a bundle on its way: in memory, and in any state one likes."""


class KeptBytes:
    """Implements ``agent.trust.download.Resumable``, and the ``write`` beside it.

    Attributes:
        content: What is kept now; ``tag`` under which it was served.
        restarts: How often it was dropped.
        stop: Raised by the next write, if set: nobody wants the rest.
    """

    def __init__(self, content: bytes = b"", tag: str = "") -> None:
        self.content = bytearray(content)
        self.tag = tag
        self.restarts = 0
        self.stop: Exception | None = None
        self.pulses = 0

    @property
    def kept(self) -> memoryview:
        """Return a copy: the original grows."""
        return memoryview(bytes(self.content))

    def remember(self, tag: str) -> None:
        """Take the tag of what follows."""
        self.tag = tag

    def restart(self) -> None:
        """Drop everything."""
        self.restarts += 1
        self.content.clear()

    def write(self, chunk: memoryview) -> None:
        """Append bytes, or refuse to."""
        self.pulses += not len(chunk)
        if self.stop is not None:
            raise self.stop
        self.content += chunk
