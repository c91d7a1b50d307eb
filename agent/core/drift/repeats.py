"""Whether the input moves at all: checksums that repeat, sample after sample."""

# In a row. No camera gives the same frame twice, its sensor's noise sees to that; but a
# muted microphone is silent for a second now and then, and a source may repeat a few
# frames when it starts. Thirty are a second of video or of overlapping audio.
STUCK_SAMPLES = 30
# A thermometer that is read faster than it changes repeats itself by nature: a run has
# to be so many times longer than any that ended by itself. A run that alarmed counts as
# no longer than what alarmed: a camera that froze for an hour may freeze again.
MARGIN = 4


class Repeats:
    """Counts repeats in a row.

    Attributes:
        repeated: Samples that were equal to the one before, ever.
    """

    __slots__ = ("_last", "_limit", "_longest", "_run", "repeated")

    def __init__(self) -> None:
        self.repeated = 0
        self._last = -1  # no checksum: crc32 is not negative
        self._run = 0
        self._longest = 0
        self._limit = STUCK_SAMPLES

    def update(self, checksum: int) -> float:
        """Take in a sample's checksum; return the run over what counts as stuck.

        Law: above 1 only after more than ``STUCK_SAMPLES`` equal checksums in a row.
        """
        if checksum != self._last:
            self._longest = max(self._longest, min(self._run, self._limit))
            self._limit = max(STUCK_SAMPLES, MARGIN * self._longest)
            self._last = checksum
            self._run = 0
            return 0.0
        self.repeated += 1
        self._run += 1
        return self._run / self._limit
