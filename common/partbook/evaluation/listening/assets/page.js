"use strict";
(() => {
  const kit = JSON.parse(document.getElementById("kit").textContent);
  const pair = kit.kind === "ab";
  const byId = (id) => document.getElementById(id);
  const sections = ["intro", "trial", "end"].map(byId);
  const places = pair ? ["first", "second"] : ["clip"];

  // ---- what is kept, so that a closed page goes on
  const shelf = `partbook-listen-${kit.kit}`;
  const blank = () => ({ listener: "", session: "", at: 0, answers: {} });
  let keeps = true;
  let state = blank();
  try {
    const found = JSON.parse(localStorage.getItem(shelf) || "null");
    if (found && typeof found.answers === "object") state = { ...state, ...found };
    localStorage.setItem(shelf, JSON.stringify(state));
  } catch { keeps = false; }
  const keep = () => {
    if (!keeps) return;
    try { localStorage.setItem(shelf, JSON.stringify(state)); } catch { keeps = false; }
  };
  const answerTo = (trial) => {
    const empty = () => trial.clips.map(() => 0);
    return state.answers[trial.number] ??= { choice: 0, sure: 0, time: "", seconds: empty(), reached: empty() };
  };
  const trialNow = () => kit.trials[state.at];
  const isAnswered = (trial) => Boolean(state.answers[trial.number]?.time);
  const answered = () => kit.trials.filter(isAnswered).length;
  const heard = (answer, index) => answer.reached[index] >= kit.hear;

  // ---- sound: one player a clip, of the trial that is open
  let players = [];
  let current = 0;
  let leftAt = 0; // where Back leads from the end

  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const closePlayers = () => {
    for (const { audio, address, advance, hearing } of players) {
      advance();
      hearing.abort(); // what it reports from now on belongs to no open trial
      audio.pause();
      audio.removeAttribute("src");
      URL.revokeObjectURL(address);
    }
    players = [];
  };
  const openPlayers = (trial) => {
    closePlayers();
    const answer = answerTo(trial);
    players = trial.clips.map((clip, index) => {
      const address = URL.createObjectURL(new Blob([bytesOf(clip.audio)], { type: "audio/mpeg" }));
      const audio = new Audio(address);
      audio.preload = "auto";
      const hearing = new AbortController();
      const on = (event, does) => audio.addEventListener(event, does, { signal: hearing.signal });
      const advance = () => {
        const step = audio.currentTime - player.last;
        player.last = audio.currentTime;
        if (step > 0) {
          answer.seconds[index] += step;
          answer.reached[index] = Math.max(answer.reached[index], audio.currentTime);
        }
      };
      const player = { audio, address, advance, hearing, last: 0 };
      on("timeupdate", () => { advance(); drawClip(index); });
      on("seeking", () => { player.last = audio.currentTime; });
      on("play", () => drawClip(index));
      on("pause", () => { advance(); keep(); drawClip(index); });
      on("ended", () => {
        advance();
        answer.reached[index] = Math.max(answer.reached[index], kit.seconds);
        keep();
        drawClip(index);
        const unheard = answer.reached.findIndex((_, other) => !heard(answer, other));
        if (unheard >= 0) makeCurrent(unheard);
      });
      on("error", () => tell("This browser cannot play the clip. Please open the page in another one."));
      return player;
    });
  };
  const frames = () => {
    players.forEach(({ audio }, index) => { if (!audio.paused) drawShare(index); });
    requestAnimationFrame(frames);
  };
  const toggle = (index) => {
    makeCurrent(index);
    const { audio } = players[index];
    if (!audio.paused) { audio.pause(); return; }
    players.forEach((player, other) => { if (other !== index) player.audio.pause(); });
    audio.play().catch(() => tell("The clip does not start. Press its button once more."));
    tell("");
  };
  const switchClip = () => {
    if (players.length < 2) return;
    const playing = !players[current].audio.paused;
    if (playing) toggle(1 - current); else makeCurrent(1 - current);
    say(`The ${places[current]} clip.`);
  };
  const restart = () => {
    players[current].audio.currentTime = 0;
    if (players[current].audio.paused) toggle(current);
  };

  // ---- drawing
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const drawing = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const say = (words) => { byId("said").textContent = words; };
  const tell = (words) => { byId("message").textContent = words; if (words) say(words); };
  const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

  const playButton = (index) => {
    const icon = drawing("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" });
    icon.append(drawing("path", { class: "triangle", d: "M7 4.2v15.6a.8.8 0 0 0 1.2.7l12.6-7.8a.8.8 0 0 0 0-1.4L8.2 3.5A.8.8 0 0 0 7 4.2z" }));
    icon.append(drawing("path", { class: "bars", d: "M6 4h4.2v16H6zM13.8 4H18v16h-4.2z" }));
    const button = element("button", { type: "button", class: "play" }, icon);
    button.addEventListener("click", () => toggle(index));
    return button;
  };
  const choice = (value, words, spoken) => {
    const input = element("input", { type: "radio", name: "choice", value: String(value), "aria-label": spoken });
    input.addEventListener("change", () => choose(value));
    return element("label", { class: "choice" }, input, element("span", {}, words, element("kbd", { "aria-hidden": "true" }, String(value))));
  };
  const buildClips = (trial) => {
    const grid = byId("clips");
    grid.className = pair ? "pair" : "human";
    grid.replaceChildren(...trial.clips.map((_, index) => {
      const card = element("article", { class: "clip", "aria-label": pair ? `The ${places[index]} clip` : "The clip" });
      if (pair) card.append(element("h2", {}, index ? "Second" : "First"));
      card.append(playButton(index), element("p", { class: "heard" }));
      const choices = element("div", { class: "choices", role: "radiogroup", "aria-label": kit.question });
      if (pair) choices.append(choice(index + 1, kit.choices[index], `Choose the ${places[index]} clip`));
      else kit.choices.forEach((words, at) => choices.append(choice(at + 1, words, words)));
      card.append(choices);
      return card;
    }));
  };
  const cards = () => [...byId("clips").children];
  const drawShare = (index) => {
    const { audio } = players[index];
    const share = audio.currentTime / (audio.duration || kit.seconds);
    cards()[index].querySelector(".play").style.setProperty("--share", String(Math.min(1, share)));
  };
  const drawClip = (index) => {
    if (!players[index]) return;
    const { audio } = players[index];
    const card = cards()[index];
    const answer = answerTo(trialNow());
    const playing = !audio.paused && !audio.ended;
    card.classList.toggle("playing", playing);
    card.classList.toggle("current", pair && index === current);
    card.classList.toggle("chosen", pair && answer.choice === index + 1);
    card.querySelector(".play").setAttribute("aria-label", `${playing ? "Pause" : "Play"} the ${places[index] === "clip" ? "clip" : `${places[index]} clip`}`);
    const word = card.querySelector(".heard");
    const enough = heard(answer, index);
    word.classList.toggle("yes", enough);
    word.textContent = playing ? `${clock(audio.currentTime)} of ${clock(kit.seconds)}` : enough ? "✓ heard" : answer.reached[index] > 0 ? "heard too little" : "not heard yet";
    drawShare(index);
    drawReady();
  };
  const makeCurrent = (index) => {
    current = index;
    players.forEach((_, each) => drawClip(each));
  };
  const drawReady = () => {
    const answer = answerTo(trialNow());
    const ready = answer.reached.every((_, index) => heard(answer, index));
    byId("clips").classList.toggle("waiting", !ready);
    byId("next").setAttribute("aria-disabled", String(!(ready && answer.choice)));
  };
  const drawAnswer = () => {
    const answer = answerTo(trialNow());
    for (const input of document.querySelectorAll("input[name=choice]")) input.checked = Number(input.value) === answer.choice;
    for (const input of document.querySelectorAll("input[name=sure]")) input.checked = Number(input.value) === answer.sure;
    players.forEach((_, index) => drawClip(index));
  };
  const drawProgress = () => {
    const done = answered();
    const bar = byId("progress");
    bar.setAttribute("aria-valuemax", String(kit.trials.length));
    bar.setAttribute("aria-valuenow", String(done));
    bar.firstElementChild.style.width = `${(100 * done) / kit.trials.length}%`;
    byId("count").replaceChildren(`${done} of ${kit.trials.length}`, element("span", {}, " answered"));
  };
  const show = (name) => {
    for (const section of sections) section.hidden = section.id !== name;
    drawProgress();
    scrollTo(0, 0);
  };

  // ---- answering
  const missing = (answer) => {
    const index = answer.reached.findIndex((_, each) => !heard(answer, each));
    if (index < 0) return "";
    const which = pair ? `the ${places[index]} clip` : "the clip";
    return `Please hear ${which} first, for ${Math.ceil(kit.hear)} seconds or more.`;
  };
  const choose = (value) => {
    const answer = answerTo(trialNow());
    const lack = missing(answer);
    if (lack) tell(lack);
    else {
      answer.choice = value;
      tell("");
      say(pair ? `The ${places[value - 1]} clip is chosen.` : `${kit.choices[value - 1]}.`);
      keep();
    }
    drawAnswer();
  };
  const beSure = (value) => {
    const answer = answerTo(trialNow());
    answer.sure = Math.max(0, Math.min(5, value));
    say(answer.sure ? `Sure: ${answer.sure} of 5.` : "No word on how sure.");
    keep();
    drawAnswer();
  };
  const confirm = () => {
    const answer = answerTo(trialNow());
    const lack = missing(answer) || (answer.choice ? "" : pair ? "Please choose one of the two." : "Please choose an answer.");
    if (lack) { tell(lack); return; }
    answer.time = new Date().toISOString();
    go(state.at + 1);
  };
  const go = (at) => {
    state.at = Math.max(0, Math.min(kit.trials.length, at));
    keep();
    leftAt = state.at;
    if (state.at === kit.trials.length) { finish(); return; }
    const trial = trialNow();
    current = 0;
    buildClips(trial);
    openPlayers(trial);
    byId("number").textContent = `${pair ? "Pair" : "Clip"} ${trial.number} of ${kit.trials.length}`;
    byId("question").textContent = kit.question;
    byId("back").hidden = state.at === 0;
    show("trial");
    tell("");
    drawAnswer();
    byId("question").focus({ preventScroll: true });
    say(`${byId("number").textContent}. ${kit.question}`);
  };

  // ---- the end, and the file
  const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const csv = () => {
    const rows = [["kit", "session", "listener", "trial", "clips", "answer", "confidence", "seconds", "time"]];
    for (const trial of kit.trials) {
      const answer = state.answers[trial.number];
      const done = isAnswered(trial);
      rows.push([
        kit.kit, state.session, state.listener, String(trial.number), trial.clips.map((clip) => clip.id).join(" "),
        done ? kit.answers[answer.choice - 1] : "", done && answer.sure ? String(answer.sure) : "",
        (answer?.seconds ?? trial.clips.map(() => 0)).map((value) => value.toFixed(1)).join(" "), done ? answer.time : "",
      ]);
    }
    return rows.map((row) => row.map(quoted).join(",")).join("\r\n") + "\r\n";
  };
  const finish = () => {
    closePlayers();
    const done = answered();
    const whole = done === kit.trials.length;
    byId("thanks").textContent = whole ? `Thank you, ${state.listener}.` : "So far";
    byId("done").textContent = whole
      ? `All ${done} answers are here. Save them as a file, and send it to whoever sent you this page.`
      : `${done} of ${kit.trials.length} are answered. You can save these, or go back and on; the page remembers where you were.`;
    byId("text").value = csv();
    byId("saved").textContent = "";
    show("end");
    byId("download").focus({ preventScroll: true });
    say(`${byId("thanks").textContent} ${byId("done").textContent}`);
  };
  const save = () => {
    const slug = state.listener.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-|-$/g, "").toLowerCase() || "listener";
    const address = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    const link = element("a", { href: address, download: `answers-${kit.kit}-${slug}.csv` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    byId("saved").textContent = `Saved as ${link.download}, where your browser puts downloads.`;
    say(byId("saved").textContent);
  };
  const copy = async () => {
    const text = byId("text");
    text.closest("details").open = true;
    text.select();
    let copied = false;
    try { await navigator.clipboard.writeText(text.value); copied = true; } catch { copied = document.execCommand("copy"); }
    byId("saved").textContent = copied ? "Copied." : "Select the text below and copy it.";
    say(byId("saved").textContent);
  };
  const again = () => {
    const button = byId("again");
    if (button.dataset.asked) {
      delete button.dataset.asked;
      button.textContent = "Another listener on this computer";
      state = blank();
      keep();
      begin();
      return;
    }
    button.dataset.asked = "yes";
    button.textContent = "This forgets the answers above. Press once more if they are saved.";
    say(button.textContent);
  };
  const begin = () => {
    closePlayers();
    byId("listener").value = state.listener;
    show("intro");
    byId("listener").focus({ preventScroll: true });
  };

  // ---- keys
  const KEYS = [
    [["Space"], "play or pause"],
    ...(pair ? [[["S"], "the other clip"]] : []),
    [["R"], "from the beginning"],
    [["1", "2", "←", "→"], pair ? "choose the first, the second" : kit.choices.join(", ").toLowerCase()],
    [["↑", "↓"], "surer, less sure"],
    [["Enter"], "next"],
    [["⌫"], "back"],
  ];
  const legend = () => KEYS.flatMap(([keys, what]) => [
    element("span", {}, ...keys.map((key) => element("kbd", {}, key))), element("span", {}, what),
  ]);
  const takesText = (target) => target.matches("input[type=text], textarea");
  const onTrialKey = (event) => {
    const target = event.target;
    const onButton = target.matches("button, summary");
    const onRadio = target.matches("input[type=radio]");
    const arrowsAreNative = target.matches("input[name=sure]");
    const does = {
      " ": () => toggle(current), s: switchClip, r: restart, Home: restart,
      1: () => choose(1), 2: () => choose(2), ArrowLeft: () => choose(1), ArrowRight: () => choose(2),
      ArrowUp: () => beSure(answerTo(trialNow()).sure + 1), ArrowDown: () => beSure(answerTo(trialNow()).sure - 1),
      Enter: confirm, Backspace: () => go(state.at - 1),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!does) return;
    if (onButton && (event.key === " " || event.key === "Enter")) return;
    if (onRadio && event.key === " ") return;
    if (arrowsAreNative && event.key.startsWith("Arrow")) return;
    event.preventDefault();
    if (event.repeat && !event.key.startsWith("Arrow")) return;
    does();
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || takesText(event.target)) return;
    if (!byId("trial").hidden) onTrialKey(event);
    else if (!byId("end").hidden && event.key === "Backspace") {
      event.preventDefault();
      if (!event.repeat) leaveEnd();
    }
  });
  // What was clicked keeps no focus, so that the space bar goes on to mean the clip.
  byId("trial").addEventListener("pointerup", () => setTimeout(() => {
    if (document.activeElement?.matches("button, input[type=radio]")) document.activeElement.blur();
  }));
  const leaveEnd = () => go(Math.min(leftAt, kit.trials.length - 1));

  // ---- start
  byId("what").textContent = pair
    ? `You will hear ${kit.trials.length} pairs of short clips. For each pair: ${kit.question}`
    : `You will hear ${kit.trials.length} short clips. For each: ${kit.question}`;
  byId("how").textContent = pair
    ? "Hear both clips of a pair, then choose one. If you cannot tell, guess: that counts as much."
    : "Hear the clip, then answer. If you cannot tell, guess: that counts as much. About half are of each kind.";
  byId("kept").textContent = keeps
    ? "It goes into the file with your answers and nowhere else. This page sends nothing; if you close it, it goes on where you were."
    : "It goes into the file with your answers and nowhere else. This browser keeps nothing for this page: leave it open until you have saved.";
  byId("legend").append(...legend());
  document.querySelector(".help .keys").append(...legend());
  document.querySelector(".scale").append(...[1, 2, 3, 4, 5].map((value) => {
    const input = element("input", { type: "radio", name: "sure", value: String(value), "aria-label": `${value} of 5` });
    input.addEventListener("change", () => beSure(value));
    return element("label", {}, input, element("span", {}, String(value)));
  }));
  byId("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("listener").value.replace(/\s+/g, " ").replace(/^[\s=+@-]+/, "").trim();
    if (!name) { byId("listener").value = ""; byId("listener").reportValidity(); return; }
    state.listener = name;
    state.session ||= [...crypto.getRandomValues(new Uint8Array(4))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    go(state.at);
  });
  byId("back").addEventListener("click", () => go(state.at - 1));
  byId("next").addEventListener("click", confirm);
  byId("stop").addEventListener("click", () => { finish(); });
  byId("return").addEventListener("click", leaveEnd);
  byId("download").addEventListener("click", save);
  byId("copy").addEventListener("click", copy);
  byId("again").addEventListener("click", again);
  addEventListener("pagehide", keep);
  requestAnimationFrame(frames);
  if (state.listener) go(state.at); else begin();
})();
