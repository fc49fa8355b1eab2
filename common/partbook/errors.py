"""Every error that Partbook raises, in one tree.

    PartbookError
    ├── InputError               something a person handed over cannot be used
    │   ├── AudioError           a recording cannot be ingested
    │   │   ├── UnreadableAudio      not audio, empty, or of an unknown format
    │   │   ├── TruncatedAudio       ends before its header says
    │   │   ├── SilentAudio          nothing to hear
    │   │   ├── AudioTooShort        under the minimum length
    │   │   ├── AudioTooLong         over the maximum length
    │   │   ├── NoNotesFound         audible, but nothing was transcribed
    │   │   └── AnalysisCrashed      reading it ended the process that read it
    │   ├── ScoreError           a MIDI file or token sequence cannot be used
    │   ├── UnusableKey          an identity key cannot be read, opened or written
    │   │   └── ExpiredCertificate   a TLS certificate is over, or not valid yet
    │   ├── WithdrawnRecording   audio that its label has withdrawn
    │   └── ConfigError          a configuration key is wrong or missing
    ├── IntegrityError           bytes are not what their manifest says
    │   ├── AlteredFile              a hash does not match
    │   ├── BadSignature             a signature does not verify
    │   └── CorruptMessage           a message does not parse or fails its checks
    ├── VaultError               the label's store
    │   ├── WrongVaultKey            the key does not open this vault
    │   ├── InsecureKeyFile          others may read the key
    │   ├── VaultBusy                another process is writing to it
    │   └── LedgerBroken             the label's ledger of privacy was altered, or does not fit what the node holds
    ├── RoundError               a round cannot go on
    │   ├── CohortTooSmall           fewer members answered than the plan needs
    │   ├── NodeFailed               one member answered with an error
    │   ├── TrainingCrashed          a process that was training on one of several devices was ended
    │   ├── RunFailed                a run ended before its rounds were done, and could not be gone on with
    │   └── SealingCrashed           a process that seals or opens chunks was ended
    ├── ProtocolViolation        somebody broke the protocol; the message goes unanswered
    │   ├── SwappedKey               a key was not signed by the member it is said to belong to
    │   ├── ForgedMember             a name the pinned roster does not hold, or holds with another key
    │   ├── DuplicateMember          one member twice in a list
    │   ├── ReplayedMessage          signed for another federation, round, plan or kind
    │   ├── CohortChanged            a later exchange names other members than the earlier one
    │   ├── TwoSurvivorLists         two lists of survivors in one round
    │   ├── SurvivorAlsoDropped      one peer named as both
    │   ├── SecondReveal             shares asked for twice, with different lists
    │   ├── AlteredShare             an encrypted share fails its authentication
    │   ├── AlteredCiphertext        a sealed block is not the one that was signed
    │   ├── ForeignSealKey           a sealed block or a plan is for another key or other parameters
    │   ├── ValueOutOfRange          a value outside its ring or grid
    │   ├── UnknownMessage           a message of a type that this party never takes
    │   ├── OutOfTurn                an exchange came before the one it builds on, or after the round's end
    │   └── UnsignedRoster           a roster lacks a signature, or carries a wrong one
    ├── PolicyRefusal            a node declines, to protect its label; never retried silently
    │   ├── OpenSumsRefused          the coordinator would read the sum, which this label wants sealed
    │   ├── StalePlan                the plan's round is over
    │   ├── NotInCohort              the plan is for others
    │   ├── UnknownModel             the model is not the one the last round led to
    │   ├── UnknownCoordinator       the label's policy names another coordinator
    │   ├── CohortRefused            fewer labels than the label's policy wants around it
    │   ├── NoiseRefused             no noise, or of a kind the label's policy does not allow
    │   ├── SamplingRefused          recordings would be drawn more often than the label's policy allows
    │   ├── RoundsRefused            more rounds than the label's policy allows
    │   ├── ReleaseRefused           the label's policy hands no model over by itself
    │   ├── OutsideHours             the label's policy lets nobody train at this time
    │   ├── NodePaused               the label's engineer has paused the node
    │   ├── WrongClock               this machine's clock and the coordinator's are too far apart
    │   └── BudgetExhausted          the label's recordings would lose more privacy than its policy allows
    ├── LinkError                the way between a party and the coordinator
    │   ├── CoordinatorUnreachable   nobody answers there
    │   ├── CertificateRefused       one side does not accept the other's certificate
    │   ├── AlreadyConnected         a node with this key is online elsewhere
    │   ├── AlreadyRunning           another process works in the same state folder
    │   └── FlowerChanged            the installed Flower is not the one whose inner interface is used here
    ├── ServiceFailed            a process of the coordinator ended and cannot be kept up
    ├── UnsupportedEvent         an accountant was asked for the cost of something it has no theorem for
    ├── TrainingDiverged         a loss or a gradient is no number any more
    └── GenerationError          the generator cannot do what was asked

A message says what was wrong, where, and what the person can do about it.
"""

from __future__ import annotations


class PartbookError(Exception):
    """Root of the tree; catching it catches every refusal and failure Partbook foresees."""


class InputError(PartbookError):
    """Something a person handed over cannot be used."""


class AudioError(InputError):
    """A recording cannot be ingested."""


class UnreadableAudio(AudioError):
    """Not audio, empty, or in a format no decoder here knows."""


class TruncatedAudio(AudioError):
    """The audio ends before its header says it should."""


class SilentAudio(AudioError):
    """There is nothing to hear in the file."""


class AudioTooShort(AudioError):
    """The recording is shorter than the minimum."""


class AudioTooLong(AudioError):
    """The recording is longer than the maximum."""


class NoNotesFound(AudioError):
    """The recording is audible, but no notes were found in it."""


class AnalysisCrashed(AudioError):
    """The process that analysed the recording was ended by it, or ran out of memory."""


class ScoreError(InputError):
    """A MIDI file or a token sequence cannot be used."""


class UnusableKey(InputError):
    """An identity key cannot be read, opened or written."""


class ExpiredCertificate(UnusableKey):
    """A TLS certificate is over, or not valid yet."""


class WithdrawnRecording(InputError):
    """The audio is of a recording that its label has withdrawn for good."""


class ConfigError(InputError):
    """A configuration key is wrong or missing; the message names it."""


class IntegrityError(PartbookError):
    """Bytes are not what their manifest or signature says they are."""


class AlteredFile(IntegrityError):
    """A file's SHA-256 differs from its manifest's."""


class BadSignature(IntegrityError):
    """A signature does not verify under the expected key."""


class CorruptMessage(IntegrityError):
    """A protocol message does not parse, or fails one of its checks."""


class VaultError(PartbookError):
    """The label's encrypted store cannot be used as asked."""


class WrongVaultKey(VaultError):
    """The key does not open this vault, or a shard was altered."""


class InsecureKeyFile(VaultError):
    """The key file may be read by others."""


class VaultBusy(VaultError):
    """Another process is writing to the vault."""


class LedgerBroken(VaultError):
    """The label's ledger of privacy was altered, or does not fit what the node holds."""


class RoundError(PartbookError):
    """A round cannot go on."""


class CohortTooSmall(RoundError):
    """Fewer members answered than the plan needs."""


class NodeFailed(RoundError):
    """A member of the cohort answered with an error.

    Attributes:
        declined: the name of the error that it declined with; empty where it failed without one.
    """

    def __init__(self, message: str, *, declined: str = "") -> None:
        """Keep the name of the error."""
        super().__init__(message)
        self.declined = declined


class TrainingCrashed(RoundError):
    """A process that was training on one of several devices was ended, or ran out of memory."""


class RunFailed(RoundError):
    """A run ended before its rounds were done, and could not be gone on with."""


class SealingCrashed(RoundError):
    """A process that was sealing or opening chunks was ended, or ran out of memory."""


class ProtocolViolation(PartbookError):
    """Somebody broke the protocol: a party, or whoever stands between them. The message goes unanswered."""


class SwappedKey(ProtocolViolation):
    """A key was not signed by the member it is said to belong to."""


class ForgedMember(ProtocolViolation):
    """A name that the pinned roster does not hold, or holds with another key."""


class DuplicateMember(ProtocolViolation):
    """One member is named twice in a list."""


class ReplayedMessage(ProtocolViolation):
    """A message signed for another federation, round, plan or kind."""


class CohortChanged(ProtocolViolation):
    """A later exchange of a round names other members than the earlier one."""


class TwoSurvivorLists(ProtocolViolation):
    """Two different lists of survivors were shown in one round."""


class SurvivorAlsoDropped(ProtocolViolation):
    """One peer is named as a survivor and as dropped."""


class SecondReveal(ProtocolViolation):
    """Shares were asked for twice in one round, with different lists."""


class AlteredShare(ProtocolViolation):
    """An encrypted share fails its authentication."""


class AlteredCiphertext(ProtocolViolation):
    """A sealed block is not the one that was signed."""


class ForeignSealKey(ProtocolViolation):
    """A sealed block or a plan is for another key, or for other parameters."""


class ValueOutOfRange(ProtocolViolation):
    """A value lies outside its ring or grid; it is refused, never wrapped."""


class OutOfTurn(ProtocolViolation):
    """An exchange came before the one it builds on, or after the round's end."""


class UnknownMessage(ProtocolViolation):
    """A message of a type that this party never takes; it was not read."""


class UnsignedRoster(ProtocolViolation):
    """A roster lacks a party's signature, or carries a wrong one."""


class PolicyRefusal(PartbookError):
    """A node declines in order to protect its label. Never retried silently."""


class OpenSumsRefused(PolicyRefusal):
    """The plan is for a masked round, whose sum the coordinator reads, where this label wants sums sealed."""


class StalePlan(PolicyRefusal):
    """The plan is for a round that is over, or that this node never trained for."""


class NotInCohort(PolicyRefusal):
    """The plan is for other members than this one."""


class UnknownModel(PolicyRefusal):
    """The model offered is not the one the last round led to."""


class UnknownCoordinator(PolicyRefusal):
    """The coordinator is not the one that the label's policy names."""


class CohortRefused(PolicyRefusal):
    """The plan brings together fewer labels than the label's policy wants."""


class NoiseRefused(PolicyRefusal):
    """The plan adds no noise, or noise of a kind that the label's policy does not allow."""


class SamplingRefused(PolicyRefusal):
    """The plan draws recordings with a probability above what the label's policy allows."""


class RoundsRefused(PolicyRefusal):
    """The label has taken part in as many rounds as its policy allows."""


class ReleaseRefused(PolicyRefusal):
    """The label's policy lets its node hand over, or endorse, no model by itself."""


class OutsideHours(PolicyRefusal):
    """The label's policy lets nobody train at this time of the day."""


class NodePaused(PolicyRefusal):
    """The label's engineer has paused the node."""


class WrongClock(PolicyRefusal):
    """This machine's clock and the coordinator's are too far apart to trust a deadline."""


class BudgetExhausted(PolicyRefusal):
    """After this plan a recording would have lost more privacy than the label's policy allows."""


class LinkError(PartbookError):
    """The way between a party and the coordinator cannot be used."""


class CoordinatorUnreachable(LinkError):
    """Nobody answers at the coordinator's address."""


class CertificateRefused(LinkError):
    """One side does not accept the other's certificate."""


class AlreadyConnected(LinkError):
    """A node with this key is online elsewhere."""


class AlreadyRunning(LinkError):
    """Another process works in the same state folder."""


class FlowerChanged(LinkError):
    """The installed Flower is not the one whose inner interface is used here."""


class ServiceFailed(PartbookError):
    """A process of the coordinator ended and cannot be kept up."""


class UnsupportedEvent(PartbookError):
    """An accountant was asked for the cost of something it has no theorem for; it answers nothing, not too little."""


class TrainingDiverged(PartbookError):
    """A loss or a gradient is infinite or no number; the weights are those of the step before."""


class GenerationError(PartbookError):
    """The generator cannot do what was asked."""
