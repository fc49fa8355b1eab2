"""What a test proves, in figures and in words."""

from __future__ import annotations

import json

import pytest
from test_listening_trials import key_of

from partbook.evaluation.listening.answers import Answer, Sitting
from partbook.evaluation.listening.scoring import as_json, meaning, once_in, scored, verdict
from partbook.evaluation.listening.statistics import proportion
from partbook.evaluation.listening.trials import ANSWERS, Key


def sitting(key: Key, hits: int, answered: int | None = None, name: str = "Ann") -> Sitting:
    """Hits on the first so many trials, then misses."""
    answers = {}
    for trial in key.trials[: answered or len(key.trials)]:
        wanted = trial.number <= hits
        choice = next(word for word in ANSWERS[key.kind] if trial.hit(word) == wanted)
        answers[trial.number] = Answer(choice, None, (1.0,), "")
    return Sitting(name, name, answers)


def always(key: Key, word: str, name: str = "Ann") -> Sitting:
    return Sitting(name, name, {trial.number: Answer(word, None, (1.0,), "") for trial in key.trials})


def test_hits_of_each_and_of_all_together_are_counted() -> None:
    key = key_of("ab", 20)
    found = scored(key, [sitting(key, 15, name="Ann"), sitting(key, 12, name="Ben")])
    assert [result.hits for result in found.listeners] == [proportion(15, 20), proportion(12, 20)]
    assert found.together == proportion(27, 40)
    assert found.agreement is not None
    assert found.agreement.raw == pytest.approx(17 / 20), "they differ in the three trials that Ann alone hit"
    assert found.majority is None, "two listeners are no majority"


def test_a_majority_needs_three_and_leaves_draws_out() -> None:
    key = key_of("ab", 20)
    three = [sitting(key, hits, name=name) for name, hits in (("Ann", 15), ("Ben", 12), ("Cem", 3))]
    assert scored(key, three).majority == proportion(12, 20)
    four = [*three, sitting(key, 3, name="Dee")]
    assert scored(key, four).majority == proportion(3, 11), "trials 4 to 12 are two against two"


def test_human_or_not_says_how_often_each_was_taken_for_human() -> None:
    key = key_of("human", 10)
    found = scored(key, [always(key, "human")])
    assert found.taken_for_human == (proportion(10, 10), proportion(10, 10))
    assert found.together == proportion(10, 20)
    assert found.listeners[0].margins_p == pytest.approx(1.0)
    assert scored(key, [sitting(key, 20)]).listeners[0].margins_p == pytest.approx(2 / 184_756)


@pytest.mark.parametrize("kind", ["ab", "human"])
@pytest.mark.parametrize("place", [0, 1])
def test_one_answer_throughout_is_called_a_habit(kind, place: int) -> None:
    key = key_of(kind, 10)
    word = ANSWERS[key.kind][place]
    assert any(f"“{word}” {len(key.trials)} times" in line for line in scored(key, [always(key, word)]).warnings)


def test_half_finished_and_too_few_are_warned_of() -> None:
    key = key_of("ab", 20)
    warnings = scored(key, [sitting(key, 5, answered=6)]).warnings
    assert any("answered 6 of 20" in line for line in warnings)
    assert any("Too few answers" in line for line in warnings)
    assert not any("Too few" in line for line in scored(key, [sitting(key, 15, name=n) for n in "abc"]).warnings)


def test_without_any_answer_nothing_is_said_and_nothing_breaks() -> None:
    key = key_of("ab", 20)
    for sittings in ([], [Sitting("Ann", "s", {})], [Sitting("Ann", "s", {}), Sitting("Ben", "t", {})]):
        found = scored(key, sittings)
        assert "No answers: nothing can be said." in found.warnings
        said = json.loads(json.dumps(as_json(found), allow_nan=False))
        assert said["together"]["share"] is None
        assert verdict(key, found.together) == "No answers."


def test_seventy_five_per_cent_is_spelt_out() -> None:
    assert "gets 15 of 20 or better once in 48 times" in meaning(20)
    assert "from 15 of 20 on" in meaning(20)
    assert "too few trials" in meaning(4)


def test_frequencies_read_as_people_say_them() -> None:
    assert once_in(0.0207) == "once in 48 times"
    assert once_in(0.9) == "in 90 % of such tests"
    assert once_in(1e-12) == "practically never"


def test_a_verdict_names_the_side_that_won() -> None:
    key, human = key_of("ab", 20), key_of("human", 10)
    assert "more than chance" in verdict(key, proportion(16, 20))
    assert "B was preferred" in verdict(key, proportion(3, 20))
    assert "do not tell A from B" in verdict(key, proportion(11, 20))
    assert "they can tell" in verdict(human, proportion(16, 20))
    assert "the wrong way" in verdict(human, proportion(3, 20))


def test_the_json_is_plain_and_whole() -> None:
    key = key_of("human", 10)
    said = json.loads(json.dumps(as_json(scored(key, [sitting(key, 16), sitting(key, 14, name="Ben")]))))
    assert said["listeners"][0]["interval"] == pytest.approx([0.5634, 0.9427], abs=1e-4)
    assert said["agreement"]["trials"] == 20
    assert said["meaning"]["hits"] == 15
    assert said["meaning"]["trials_needed"] == 35
