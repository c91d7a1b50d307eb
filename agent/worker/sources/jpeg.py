"""Splitting a stream of JPEG pictures (mjpeg) at their markers, as ITU-T T.81 B.1 says.

A picture begins with SOI and ends with EOI. Between them, segments carry their length
(and may hold whole thumbnails, which are stepped over), and after SOS entropy-coded
bytes follow, in which FF is stuffed with 00 or is a restart marker.

The rules this module keeps:
 * Sans IO: bytes in, whole pictures out; any cut of the stream gives the same pictures.
 * Memory is bounded: a picture of more than ``limit`` bytes is given up, and of bytes
   before a picture only the last one is kept.
 * Each picture that was begun and given up counts once in ``partial``.
"""

MAX_JPEG_BYTES = 16 * 1024 * 1024  # four times a 50 megapixel still at quality 75

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
_START = b"\xff\xd8\xff"  # SOI, and the marker that has to follow
# Markers without a segment: TEM and RST0 to RST7.
_BARE = frozenset((0x01, *range(0xD0, 0xD8)))
# What may follow FF inside entropy-coded bytes: stuffing and restarts.
_STUFFED = frozenset((0x00, *range(0xD0, 0xD8)))


class JpegSplitter:
    """Collects the bytes of a stream and returns the pictures in it."""

    def __init__(self, limit: int = MAX_JPEG_BYTES) -> None:
        self.partial = 0
        self._limit = limit
        self._held = bytearray()
        self._at = 0  # next byte to look at; 0: still searching a picture's start
        self._coded = False  # whether that byte is entropy-coded

    def feed(self, chunk: bytes | memoryview) -> list[bytes]:
        """Take bytes in; return the pictures that they complete, in order."""
        self._held += chunk
        pictures = []
        while self._at or self._begin():
            end = self._walk()
            if end > 0:
                pictures.append(bytes(self._held[:end]))
                self._cut(end)
            elif end < 0:
                self._give_up(2)  # search on behind its SOI
            elif len(self._held) > self._limit:
                self._give_up(len(self._held))
            else:
                break
        return pictures

    def abandon(self) -> None:
        """The stream has ended: what was begun will never be whole."""
        if self._at:
            self.partial += 1
        self._cut(len(self._held))

    def _begin(self) -> bool:
        """Search the start of a picture; drop what lies before it."""
        start = self._held.find(_START)
        if start < 0:
            # The last two bytes may be the beginning of SOI.
            self._cut(max(0, len(self._held) - 2))
            return False
        self._cut(start)
        self._at, self._coded = 2, False
        return True

    def _walk(self) -> int:
        """Go on as far as bytes reach.

        Returns:
            Where the picture ends; 0 if bytes are missing; -1 if this is no picture.
        """
        held = self._held
        while True:
            if self._coded and not self._skip_coded():
                return 0
            if len(held) - self._at < 2:
                return 0
            if held[self._at] != 0xFF:
                return -1
            code = held[self._at + 1]
            if code == EOI:
                return self._at + 2
            if code in (0x00, SOI):
                return -1
            if not self._skip_segment(code):
                return 0

    def _skip_segment(self, code: int) -> bool:
        """Step over a marker and its segment; False if bytes are missing."""
        if code == 0xFF:  # any number of FF may stand before a marker
            self._at += 1
            return True
        if code in _BARE:
            self._at += 2
            return True
        if len(self._held) - self._at < 4:
            return False
        length = int.from_bytes(self._held[self._at + 2 : self._at + 4], "big")
        # A length below 2 is a lie, and 2 is what the length itself takes.
        self._at += 2 + max(2, length)
        self._coded = code == SOS
        return True

    def _skip_coded(self) -> bool:
        """Step over entropy-coded bytes to the next marker; False if there is none."""
        held = self._held
        while True:
            at = held.find(0xFF, self._at)
            if at < 0 or at + 1 >= len(held):
                # Look at this FF again when its second byte has come.
                self._at = max(self._at, len(held) if at < 0 else at)
                return False
            self._at = at
            if held[at + 1] not in _STUFFED:
                self._coded = False
                return True
            self._at = at + 2

    def _give_up(self, count: int) -> None:
        """Leave a picture that cannot be one, and search behind ``count`` bytes."""
        self.partial += 1
        self._cut(count)

    def _cut(self, count: int) -> None:
        """Forget the first ``count`` bytes and begin to search."""
        del self._held[:count]
        self._at, self._coded = 0, False
