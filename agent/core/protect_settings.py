"""Tables ``[seal]``, ``[audit]``, ``[meter]`` and ``[integrity]`` of agent.toml.

Each part can be switched off; what none of them protects against, a board whose root
lies, stands in the README.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from agent.core.receipts import InputHash, Mode

CredentialName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}$(?!\n)")]
Share = Annotated[float, Meta(ge=0, le=1)]


class Table(Struct, frozen=True, forbid_unknown_fields=True):
    """Base: immutable and strict."""


class SealSettings(Table, frozen=True):
    """[seal]: the key by which this board opens sealed models.

    Attributes:
        key: File of the private key, which only the daemon's user may read.
        credential: The same as the name of a systemd credential; one of the two.
    """

    key: str = ""
    credential: CredentialName = ""


class AuditSettings(Table, frozen=True):
    """[audit]: a receipt for every inference, in a log that cannot be rewritten.

    Attributes:
        mode: ``off``; ``count`` inferences; ``chain`` what ran and what it answered;
            ``inputs`` hashes what it was asked, too.
        input_hash: ``auto`` takes SHA-256 where the CPU has instructions for it.
        key: The board's Ed25519 key that signs checkpoints; empty: made and kept in
            the state directory.
        credential: The same as the name of a systemd credential; wins over ``key``.
        owner_key: Public sealing key of the model's owner (a .pub file): kept inputs
            and the first key of the ratchet are sealed to it. Empty keeps none.
        keep_one_in: One in so many inputs is kept for audits; 0 for none.
        keep_mb: What kept inputs may take; the oldest go first.
        quota_mb: What the log may take; the oldest records go, their hashes stay.
        when_full: Where the disk takes no more: ``stop`` answering, or go on and
            ``count`` what has no receipt. With ``stop`` each pipeline may answer twice
            ``checkpoint_records`` ahead of the disk, and no more.
        checkpoint_records: A checkpoint is signed after so many records...
        checkpoint_s: ...or so many seconds, if there is anything new.
    """

    mode: Mode = "off"
    input_hash: Literal["auto"] | InputHash = "auto"
    key: str = ""
    credential: CredentialName = ""
    owner_key: str = ""
    keep_one_in: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1000
    keep_mb: Annotated[float, Meta(gt=0, le=1_000_000)] = 64.0
    quota_mb: Annotated[float, Meta(ge=1, le=1_000_000)] = 256.0  # 2 M records
    when_full: Literal["stop", "count"] = "count"
    checkpoint_records: Annotated[int, Meta(ge=1, le=65_536)] = 256
    checkpoint_s: Annotated[float, Meta(gt=0, le=3600)] = 10.0


class MeterSettings(Table, frozen=True):
    """[meter]: inferences that are paid for in advance; off without ``vendor_key``.

    Attributes:
        vendor_key: Ed25519 public key (PEM) that signs vouchers.
        lease: Units that one durable write reserves at least, and so what a power cut
            may cost; two seconds of answers where those are more.
        refund: Give back what was reserved and not handed out when the daemon was
            killed; after a loss of power nobody knows that, and all of it is charged.
    """

    vendor_key: str = ""
    lease: Annotated[int, Meta(ge=1, le=10_000_000)] = 1000
    refund: bool = False


class Unpaid(Table, frozen=True):
    """What a pipeline does once nothing is left: ``pipeline.unpaid``.

    Attributes:
        policy: ``stop`` answering; go on for ``grace`` more units; or ``degrade``:
            answer one sample in ``every``.
        grace: Units that are owed at most.
        every: See ``policy``.
    """

    policy: Literal["stop", "grace", "degrade"] = "stop"
    grace: Annotated[int, Meta(ge=0, le=2**48)] = 0
    every: Annotated[int, Meta(ge=2, le=1000)] = 10


class IntegritySettings(Table, frozen=True):
    """[integrity]: whether what runs is still what was verified.

    Attributes:
        rehash_mbps: Megabytes of a model's memory that are hashed each second; 0: none.
        known_answers: Ask for golden answers while no sample waits.
        audit_one_in: One in so many samples is answered again on other kernels; 0:
            none.
    """

    rehash_mbps: Annotated[float, Meta(ge=0, le=10_000)] = 1.0
    known_answers: bool = True
    audit_one_in: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 1000
