"""A listening test taken in headless Chromium by keyboard alone: is the CSV what was answered, and the score right?

For each kind a kit of ten trials is made, and a played listener, who sees nothing but keys and clocks, gives ten
answers that were drawn beforehand. On the way the listener tries to answer unheard, goes back and changes an answer,
and closes the page and opens it again. The file the page saves goes through `partbook listen score --json`, and every
row and the interval are held against what was pressed and against beta quantiles (Clopper & Pearson 1934).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.stats import beta
from symusic import Note, Score, Tempo, Track

from benchmarks import chromium
from benchmarks.claims import Claim, report

TRIALS: Final = 10
SECONDS, HEAR = 3.0, 1.0
LISTENER: Final = 'Jo "Ears", 2nd'  # a name that a CSV has to quote
NAME: Final = "Two ways of writing"
CHANGED, CLOSED = 4, 6  # the trial whose answer is changed afterwards; the trial after which the page is closed
VISIBLE: Final = "[...document.querySelectorAll('main > section')].find((each) => !each.hidden)?.id"


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, take and score a test of either kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("build/listening"), help="folder for screenshots")
    asked = parser.parse_args(arguments)
    program = chromium.find()
    if program is None:
        print(
            f"No Chromium found: none of {', '.join(chromium.NAMES)} is on PATH and {chromium.VARIABLE} names none. "
            "Install one (Debian: apt-get install chromium) and run this again; nothing was checked.",
            file=sys.stderr,
        )
        return 3
    asked.pictures.mkdir(parents=True, exist_ok=True)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory(prefix="partbook-listening-", ignore_cleanup_errors=True) as folder:
        for seed, kind in enumerate(("ab", "human"), 1):
            claims += check(program, Path(folder) / kind, kind, seed, asked.pictures)
    return 0 if report("listening", claims) else 1


def check(program: str, folder: Path, kind: str, seed: int, pictures: Path) -> list[Claim]:
    """One kit: made, taken by keyboard, scored, compared."""
    random = np.random.Generator(np.random.Philox(seed))
    for name, scattered in (("A", False), ("B", True)):
        (folder / name).mkdir(parents=True)
        for piece in range(TRIALS):
            (folder / name / f"{piece}.mid").write_bytes(written(random, scattered).dumps_midi())
    made = partbook(
        "listen", "make", folder / "A", folder / "B", "--out", folder / "kit", "--kind", kind, "--trials", TRIALS,
        "--seed", seed, "--seconds", SECONDS, "--hear", HEAR, "--name", NAME, "--json",
    )  # fmt: skip
    origins = [
        [clip["origin"] for clip in trial["clips"]] for trial in json.loads(Path(made["key"]).read_text())["trials"]
    ]
    answers = [int(answer) for answer in random.integers(1, 3, TRIALS)]
    sure = [int(word) for word in random.integers(0, 6, TRIALS)]
    began = time.perf_counter()
    with chromium.opened(program, folder / "profile") as page:
        saved = taken(page, Path(made["page"]), kind, answers, sure, folder / "downloads", pictures)
        quiet(page, Path(made["page"]))
    print(f"{kind}: {TRIALS} trials by keyboard in {time.perf_counter() - began:.0f} s, saved as {saved.name}")

    rows = list(csv.DictReader(io.StringIO(saved.read_bytes().decode("utf-8"), newline="")))
    words = ("first", "second") if kind == "ab" else ("human", "not")
    right = sum(
        row["kit"] == made["kit"]
        and row["listener"] == LISTENER
        and row["trial"] == str(number)
        and row["answer"] == words[answer - 1]
        and row["confidence"] == (str(word) if word else "")
        and len(row["clips"].split()) == len(origin) == len(row["seconds"].split())
        and all(float(heard) >= 0.9 * HEAR for heard in row["seconds"].split())
        for number, (row, answer, word, origin) in enumerate(zip(rows, answers, sure, origins, strict=True), 1)
    )
    scored = partbook("listen", "score", made["key"], saved, "--json")
    if kind == "ab":
        hits = sum(origin[answer - 1] == "A" for origin, answer in zip(origins, answers, strict=True))
    else:
        hits = sum((origin[0] == "A") == (answer == 1) for origin, answer in zip(origins, answers, strict=True))
    found = scored["listeners"][0]
    print(
        f"{kind}: {found['hits']} of {found['of']}, interval {found['interval'][0]:.4f} to {found['interval'][1]:.4f}"
    )
    low = float(beta.ppf(0.025, hits, TRIALS - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, TRIALS - hits)) if hits < TRIALS else 1.0
    far = max(abs(found["interval"][0] - low), abs(found["interval"][1] - high))
    return [
        Claim(f"{kind}: rows of the CSV that are as answered", "rows", right, TRIALS, "keys pressed", 1.0),
        Claim(f"{kind}: answers scored as the key has it", "answers", TRIALS - abs(found["hits"] - hits), TRIALS,
              "counted from the key", 1.0),
        Claim(f"{kind}: interval within 1e-9 of beta quantiles", "distance + 1e-12", far + 1e-12, 1e-9,
              "scipy.stats.beta", 1.0, at_least=False),
    ]  # fmt: skip


def written(random: np.random.Generator, scattered: bool) -> Score:
    """A few bars: a scale that goes up and down, or the same number of notes anywhere."""
    score, track = Score(480), Track(program=0, is_drum=False, name="")
    pitch = 60
    for place in range(24):
        pitch = int(random.integers(40, 90)) if scattered else pitch + int(random.choice((-2, -1, 0, 1, 2)))
        start = place * 240 + (int(random.integers(0, 240)) if scattered else 0)
        track.notes.append(Note(start, 230, pitch, int(random.integers(60, 100))))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, 120))
    return score


def partbook(*arguments: object) -> dict[str, Any]:
    """What a command with `--json` says."""
    command = [sys.executable, "-m", "partbook.cli", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def taken(
    page: chromium.Page, path: Path, kind: str, answers: list[int], sure: list[int], downloads: Path, pictures: Path
) -> Path:
    """Take the test by keyboard; returns the file that the page saves."""
    address = path.absolute().as_uri()
    downloads.mkdir()
    page.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads), eventsEnabled=True)
    page.size(1280, 900)
    page.go(address)
    page.until(f"{VISIBLE} === 'intro'")
    look(page, pictures, f"{kind}-begin")
    page.press("Enter")
    expect(page, f"{VISIBLE} === 'intro'", "a test without a name does not begin")
    page.type(LISTENER)
    page.press("Enter")
    page.until(f"{VISIBLE} === 'trial'")
    unheard(page)
    for number, (answer, word) in enumerate(zip(answers, sure, strict=True), 1):
        first = 3 - answer if number == CHANGED else answer
        give(page, number, kind, first, word, pictures)
        if number == CHANGED:
            page.press("Backspace")
            page.until(at(number))
            expect(page, f"{chosen()} === {first}", "an answer is still there when its listener comes back")
            page.press(keys_for(answer)[number % 2])
            page.press("Enter")
            page.until(at(number + 1))
        if number == CLOSED:
            page.go("about:blank")
            page.go(address)
            page.until(at(number + 1))
    page.until(f"{VISIBLE} === 'end'")
    look(page, pictures, f"{kind}-end")
    page.press("Enter")  # the focus is on the button that saves
    deadline = time.monotonic() + 30.0
    # The browser holds the name with an empty file until the whole one takes its place.
    while not (found := [path for path in downloads.glob("*.csv") if path.stat().st_size]):
        if time.monotonic() > deadline:
            raise chromium.BrowserError("the page saved no file")
        time.sleep(0.1)
    expect(page, f"document.getElementById('text').value === {json.dumps(read(found[0]))}", "the text is the file")
    named(page)
    return found[0]


def give(page: chromium.Page, number: int, kind: str, answer: int, word: int, pictures: Path) -> None:
    """Hear what there is, answer, say how sure, go on."""
    page.until(at(number))
    if kind == "human" and number == 1:
        tabbed(page, answer)
    else:
        page.press(" ")
        page.until(heard(0))
    if kind == "ab":
        page.press("s")  # the other clip goes on at once
        page.until("document.querySelectorAll('.clip')[1].classList.contains('playing')")
        if number == 3:
            look(page, pictures, f"{kind}-playing")
        page.until(heard(1))
    if not page.value(f"{chosen()} === {answer}"):
        page.press(keys_for(answer)[number % 2])
    for _ in range(word):
        page.press("ArrowUp")
    expect(page, f"{chosen()} === {answer}", f"trial {number} has the answer that was pressed")
    if number == 2:
        look(page, pictures, f"{kind}-answered")
        named(page)
    page.press("Enter")
    page.until(f"{VISIBLE} === 'end' || !({at(number)})")


def tabbed(page: chromium.Page, answer: int) -> None:
    """Play and choose as one does who goes from control to control and knows none of the page's own keys."""
    page.press("Tab")
    expect(page, "document.activeElement.matches('.play:focus-visible')", "the first control plays, and shows it")
    page.press(" ")
    page.until(heard(0))
    page.press("Tab")
    expect(page, "document.activeElement.matches('input[name=choice]:focus-visible')", "the next ones choose")
    page.press(" ")
    expect(page, f"{chosen()} === 1", "the space bar takes what has the focus")
    if answer == 2:
        page.press("ArrowRight")


def unheard(page: chromium.Page) -> None:
    """An answer before the clips were heard is refused."""
    for key in ("1", "ArrowRight", "Enter"):
        page.press(key)
        expect(page, f"{chosen()} === 0 && {at(1)}", "nothing is answered unheard")
    expect(page, "document.getElementById('message').textContent.includes('hear')", "the page says what is missing")


def keys_for(answer: int) -> tuple[str, str]:
    """Both keys of an answer."""
    return (("1", "ArrowLeft"), ("2", "ArrowRight"))[answer - 1]


def at(number: int) -> str:
    """Holds while a trial is open."""
    return f"{VISIBLE} === 'trial' && / {number} of /.test(document.getElementById('number').textContent)"


def heard(index: int) -> str:
    """Holds once a clip was heard for long enough."""
    return f"document.querySelectorAll('.heard')[{index}].classList.contains('yes')"


def chosen() -> str:
    """The answer that is marked; 0 where none is."""
    return "Number(document.querySelector('input[name=choice]:checked')?.value ?? 0)"


def look(page: chromium.Page, pictures: Path, name: str) -> None:
    """Pictures on a desk and on a phone, in the light and in the dark; nothing may stick out."""
    for width, height, dark in ((1280, 900, False), (390, 844, False), (390, 844, True), (1280, 900, True)):
        page.size(width, height, dark)
        expect(page, "document.documentElement.scrollWidth <= innerWidth", f"{name} fits {width} pixels")
        page.picture(pictures / f"{name}-{width}{'-dark' if dark else ''}.png")
    page.size(1280, 900)


def named(page: chromium.Page) -> None:
    """Everything that can be reached by keyboard has a name that a screen reader says."""
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "radio", "radiogroup", "textbox", "progressbar", "group", "article"}
    silent = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles - {"group"} and not node["name"].get("value")
    ]
    if silent:
        raise chromium.BrowserError(f"without a name: {silent}")


def quiet(page: chromium.Page, path: Path) -> None:
    """The page asked for nothing outside itself and its browser had nothing to complain of."""
    own = (path.absolute().as_uri(), "blob:", "about:", "data:")
    asked = [
        event["params"]["request"]["url"] for event in page.events if event.get("method") == "Network.requestWillBeSent"
    ]
    foreign = [url for url in asked if not url.startswith(own)]
    complaints = [
        event["params"]
        for event in page.events
        if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
        or (event.get("method") == "Runtime.consoleAPICalled" and event["params"]["type"] in ("error", "warning"))
    ]
    if foreign or complaints:
        raise chromium.BrowserError(f"asked for {foreign}, complained {complaints}")


def expect(page: chromium.Page, expression: str, what: str) -> None:
    """Fail with a sentence where an expression does not hold."""
    if not page.value(expression):
        raise chromium.BrowserError(f"not so: {what}")


def read(path: Path) -> str:
    """A file's text as a text area has it: line ends are \\n."""
    return path.read_bytes().decode("utf-8").replace("\r\n", "\n")


if __name__ == "__main__":
    sys.exit(main())
