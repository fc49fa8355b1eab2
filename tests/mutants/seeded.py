"""The faults: each changes one place, breaks something that a guarantee rests on, and names the tests that notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault.

    Attributes:
        name: of it.
        path: file, from the root.
        text: what stands there, exactly once.
        instead: what stands there with the fault.
        breaks: what is not true any more.
        killers: tests, as pytest names them, of which one must fail.
    """

    name: str
    path: str
    text: str
    instead: str
    breaks: str
    killers: tuple[str, ...]

    def applied(self, source: str) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: `text` does not stand there exactly once.
        """
        if source.count(self.text) != 1:
            raise ValueError(f"{self.name}: {self.path} holds {self.text!r} {source.count(self.text)} times, not once.")
        return source.replace(self.text, self.instead)


_COMMON: Final = "common/partbook"
_CLIENT: Final = "client/partbook"
_SERVER: Final = "server/partbook"

MUTANTS: Final = (
    # Who speaks, and to what
    Mutant(
        "signature-unchecked",
        f"{_COMMON}/identity/message.py",
        "        public.verify(self._covered(), self.signature, _domain(kind))\n",
        "",
        "a protocol message counts whoever signed it",
        ("tests/identity/test_message.py",),
    ),
    Mutant(
        "plan-unbound",
        f"{_COMMON}/identity/message.py",
        '            ("plan", self.context.plan, context.plan),\n',
        "",
        "a message of one attempt passes in another",
        ("tests/identity/test_message.py",),
    ),
    Mutant(
        "nonce-unchecked",
        f"{_COMMON}/plan/greeting.py",
        "    if body.nonce != nonce:\n",
        "    if not body.nonce:\n",
        "an answer to an earlier greeting says who a node is",
        ("tests/plan/test_greeting.py",),
    ),
    Mutant(
        "certificate-optional",
        f"{_COMMON}/identity/tls.py",
        "    context.verify_mode = ssl.CERT_REQUIRED\n",
        "    context.verify_mode = ssl.CERT_OPTIONAL\n",
        "the front talks to whoever shows no certificate",
        ("tests/identity/test_tls.py",),
    ),
    Mutant(
        "coordinators-word-unchecked",
        f"{_COMMON}/secagg/node.py",
        "        message.check(self._session.coordinator, kind, self._session.context, COORDINATOR)\n",
        "",
        "a label gives shares to whoever asks for them",
        ("tests/secagg/test_attacks.py",),
    ),
    Mutant(
        "ready-unchecked",
        f"{_SERVER}/coordinator/attempt.py",
        "        message.check(self._session.identities[member], e.READY, self.plan.context(), member)\n",
        "",
        "a label counts as ready by somebody else's signature",
        ("tests/coordinator/test_attempt.py::test_a_member_for_whom_somebody_else_signs_is_dropped",),
    ),
    Mutant(
        "second-node-heard",
        f"{_SERVER}/coordinator/grid.py",
        "        elif found.party in self._nodes.of:\n",
        "        elif found.party in ():\n",
        "of two nodes of one party, each with a ledger of its own, the newer is asked",
        ("tests/simulation/test_grid.py::test_a_node_that_proves_a_name_which_another_has_proved_is_not_used",),
    ),
    Mutant(
        "foreign-node-forwarded",
        f"{_SERVER}/coordinator/front.py",
        "    if node not in nodes:\n",
        "    if not node:\n",
        "a party may take another party's messages",
        ("tests/coordinator/test_front.py::test_every_path_takes_its_own_request_and_no_other_partys",),
    ),
    # Masks and shares
    Mutant(
        "mask-sign",
        f"{_COMMON}/secagg/node.py",
        "                self._seeds.append((seed, 1 if me < peer else -1))\n",
        "                self._seeds.append((seed, 1))\n",
        "masks do not cancel in the sum",
        (
            "tests/secagg/test_exactness.py::test_a_round_that_is_killed_and_resumed_at_every_exchange_gives_the_same_sum",
        ),
    ),
    Mutant(
        "wrong-modulus",
        f"{_COMMON}/secagg/rings.py",
        "            np.subtract(block, modulus, out=block, where=block >= modulus)\n",
        "            np.subtract(block, modulus, out=block, where=block > modulus)\n",
        "a sealed sum that is the modulus is not reduced",
        ("tests/secagg/test_rings.py",),
    ),
    Mutant(
        "narrow-masks",
        f"{_COMMON}/secagg/rings.py",
        "        low = elements.dtype.type(2 ** (self._ring.modulus - 1).bit_length() - 1)\n",
        "        low = elements.dtype.type(2 ** ((self._ring.modulus - 1).bit_length() - 1) - 1)\n",
        "masks leave the top bit of a contribution in the clear",
        ("tests/secagg/test_rings.py",),
    ),
    Mutant(
        "share-too-few",
        f"{_COMMON}/secagg/shares.py",
        "    coefficients = [secrets.randbelow(P) for _ in range(threshold - 1)]\n",
        "    coefficients = [secrets.randbelow(P) for _ in range(threshold - 2)]\n",
        "one share fewer than the threshold restores a secret",
        ("tests/secagg/test_shares.py",),
    ),
    Mutant(
        "confirmation-too-few",
        f"{_COMMON}/secagg/node.py",
        '        self._enough(len(signed), "confirmed the survivors", session.threshold)\n',
        '        self._enough(len(signed), "confirmed the survivors", session.threshold - 1)\n',
        "labels open a sum on which too few have agreed",
        ("tests/secagg/test_attacks.py",),
    ),
    Mutant(
        "custodian-agrees-too-soon",
        f"{_CLIENT}/custodian/opening.py",
        "        if min(len(survivors), len(signed)) < plan.threshold:\n",
        "        if min(len(survivors), len(signed)) < plan.threshold - 1:\n",
        "the custodian opens a sum on which too few have agreed",
        ("tests/custodian/test_opening.py",),
    ),
    # Sensitivity, noise and what it costs
    Mutant(
        "clip-skipped",
        f"{_CLIENT}/training/clipping.py",
        "    factors = torch.where(norms <= bound, 1.0, bound / norms * (1.0 - 2.0**-20))\n",
        "    factors = torch.ones_like(norms)\n",
        "one recording moves the sum as far as it likes",
        ("tests/training/test_clipping.py",),
    ),
    Mutant(
        "noise-left-out",
        f"{_COMMON}/privacy/mechanism.py",
        "        noise += np.clip(total, -self.signal_bound, self.signal_bound)\n",
        "        noise = np.clip(total, -self.signal_bound, self.signal_bound)\n",
        "a label's sum leaves without its share of the noise",
        ("tests/privacy/test_mechanism.py",),
    ),
    Mutant(
        "noise-too-small",
        f"{_COMMON}/privacy/mechanism.py",
        "** 2 / self.honest)\n",
        "** 2 / self.honest**2)\n",
        "the noise of all honest labels together is less than was accounted",
        ("tests/privacy/test_mechanism.py",),
    ),
    Mutant(
        "sampled-too-often",
        f"{_COMMON}/privacy/sampling.py",
        "    threshold = np.uint64(int(Fraction(probability) * 2**64))\n",
        "    threshold = np.uint64(int(Fraction(probability) * 2**64) | (1 << 62))\n",
        "a recording is drawn more often than was accounted",
        ("tests/privacy/test_sampling.py",),
    ),
    Mutant(
        "rounds-priced-as-one",
        f"{_CLIENT}/node/debits.py",
        "            times[item.event] += item.times * often\n",
        "            times[item.event] += item.times\n",
        "a ledger counts equal rounds once",
        ("tests/node/test_ledger.py",),
    ),
    Mutant(
        "debit-left-open",
        f"{_CLIENT}/node/label.py",
        "            self._ledger.commit(self._question, hashlib.sha256(self._vector.data).hexdigest())\n",
        "",
        "a contribution leaves before its debit is final",
        (
            "tests/node/test_label_privacy.py"
            "::test_the_debit_is_reserved_before_training_and_final_before_a_contribution_leaves",
        ),
    ),
    Mutant(
        "trained-anew",
        f"{_CLIENT}/node/label.py",
        "                if plan.question() != self._question:\n",
        "                if plan.hash():\n",
        "a second attempt is answered with a second draw of the noise",
        ("tests/node/test_label_privacy.py::test_a_retry_sends_the_stored_vector_and_costs_nothing_more",),
    ),
    Mutant(
        "withdrawn-trained-on",
        f"{_CLIENT}/node/label.py",
        "        self._trainer.keep(self._ledger.join(self._trainer.recordings))\n",
        "",
        "a withdrawn recording is trained on",
        (
            "tests/node/test_label_privacy.py"
            "::test_a_recording_that_is_withdrawn_while_its_node_runs_is_left_out_of_what_is_trained",
        ),
    ),
    Mutant(
        "withdrawn-taken-again",
        f"{_CLIENT}/vault/store.py",
        "        if self._tombstone(identifier):\n            raise WithdrawnRecording(withdrawn_reason(identifier))\n",
        "",
        "a vault takes audio that was withdrawn",
        ("tests/vault/test_tombstones.py::test_what_is_withdrawn_is_gone_and_refused_from_then_on",),
    ),
    # What a disk holds
    Mutant(
        "write-unflushed",
        f"{_CLIENT}/node/keeping.py",
        "            os.fsync(file.fileno())\n",
        "",
        "a node's vector, its secrets and its ledger's head may be empty after a power cut",
        ("tests/node/test_keeping.py",),
    ),
    Mutant(
        "name-unflushed",
        f"{_CLIENT}/node/keeping.py",
        "        flush(path.parent)\n    except",
        "    except",
        "what a node has kept may be gone after a power cut, or the older one there",
        ("tests/node/test_keeping.py",),
    ),
    Mutant(
        "ledger-unflushed",
        f"{_CLIENT}/node/chain.py",
        '        self._db.execute("PRAGMA synchronous = FULL")\n',
        '        self._db.execute("PRAGMA synchronous = OFF")\n',
        "a debit may be gone after a power cut",
        ("tests/node/test_ledger.py",),
    ),
    Mutant(
        "shard-unflushed",
        f"{_CLIENT}/vault/store.py",
        "                os.fsync(file.fileno())\n",
        "",
        "a recording that the index names may be empty after a power cut",
        ("tests/vault/test_store.py",),
    ),
    Mutant(
        "chain-unlinked",
        f"{_CLIENT}/node/chain.py",
        "        return hmac.digest(self._key, before + body, hashlib.sha256)",
        "        return hmac.digest(self._key, body, hashlib.sha256)",
        "rows of a ledger may be put in another order, or left out",
        ("tests/node/test_ledger.py",),
    ),
    Mutant(
        "ledger-shortened",
        f"{_CLIENT}/node/chain.py",
        "        if marked is not None and self._number < marked[0]:\n",
        "        if marked is not None and not self._number:\n",
        "an older copy of a ledger forgets what was spent",
        ("tests/node/test_ledger.py",),
    ),
    Mutant(
        "opened-sum-unverified",
        f"{_CLIENT}/node/opened_sum.py",
        "        if body.chunk >= self._plan.chunks or hashlib.sha256(blob).hexdigest() != body.sha256:\n",
        "        if body.chunk >= self._plan.chunks:\n",
        "a label takes a step that the custodian did not vouch for",
        ("tests/node/test_opened_sum.py",),
    ),
    Mutant(
        "opening-forgotten",
        f"{_CLIENT}/custodian/opening.py",
        "        self._write_record()\n",
        "",
        "a custodian that was restarted opens a round a second time, for another list",
        ("tests/custodian/test_opening.py::test_two_survivor_lists_one_after_the_other",),
    ),
    Mutant(
        "state-unflushed",
        f"{_SERVER}/coordinator/disk.py",
        "        os.fsync(file.fileno())\n",
        "",
        "a coordinator's state may be empty after a power cut",
        ("tests/coordinator/test_disk.py",),
    ),
    Mutant(
        "sum-unflushed",
        f"{_SERVER}/coordinator/attempt.py",
        "        self._sums.flush()\n",
        "",
        "an attempt's state names sums that a power cut has emptied",
        ("tests/coordinator/test_attempt.py::test_sums_are_on_the_disk_before_the_state_that_names_them",),
    ),
    Mutant(
        "sum-altered",
        f"{_SERVER}/coordinator/shelf.py",
        "        if hashlib.sha256(blob).hexdigest() != digest:\n",
        "        if not digest:\n",
        "a sum that was altered on the disk is taken for the labels'",
        ("tests/coordinator/test_shelf.py",),
    ),
    # What comes and goes
    Mutant(
        "lost-retry",
        f"{_SERVER}/coordinator/grid.py",
        "            elif now < asked.repeat or not self._grace:\n",
        "            elif asked.node is not None:\n",
        "a question that a killed process has lost is never asked again",
        ("tests/simulation/test_grid.py::test_a_question_that_stays_unanswered_is_asked_again",),
    ),
    Mutant(
        "model-agreed-too-soon",
        f"{_SERVER}/coordinator/sealed.py",
        "        if count < plan.threshold:\n",
        "        if count < plan.threshold - 1:\n",
        "a round is done though too few labels have reached one model",
        ("tests/coordinator/test_sealed.py::test_labels_that_disagree_on_the_model_are_too_few",),
    ),
)
