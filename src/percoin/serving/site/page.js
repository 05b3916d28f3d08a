"use strict";
(() => {
  const POLL_MS = 3000;
  const SLOW_MS = 30000;
  const TIMEOUT_MS = 8000;
  const LONGEST_WAIT_MS = 15000;
  const SIGNALS = ["LONG", "SHORT", "NO_TRADE"];
  const OUTCOME_WORDS = charts.OUTCOMES;

  const by = (id) => document.getElementById(id);
  const root = document.documentElement;

  // Text is only ever set as text: nothing that the server says becomes markup.
  const h = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null));
    return node;
  };

  const state = {
    tf: "", sort: "symbol", descending: false, text: "", signal: "", verdict: "", market: "",
    answers: [], models: new Map(), timeframes: [], routes: [], scoreboard: null, received: 0,
    downSince: null, problem: "", failures: 0, isLocked: false, seen: new Map(), slowAt: 0, timer: 0,
    detail: { key: "", ts: "", at: 0 },
  };

  // -- numbers and words ------------------------------------------------------------------
  const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)} %`;
  const signed = (value, digits = 4) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(digits)}`;
  const words = (text) => text.replaceAll("_", " ");
  // A number and its unit stay on one line.
  const duration = (secs) => {
    const s = Math.max(0, Math.floor(secs));
    if (s < 60) return `${s}\u00a0s`;
    if (s < 3600) return `${Math.floor(s / 60)}\u00a0min ${s % 60}\u00a0s`;
    if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h ${Math.floor((s % 3600) / 60)}\u00a0min`;
    if (s > 10 * 86400) return `${Math.floor(s / 86400)}\u00a0d`;
    return `${Math.floor(s / 86400)}\u00a0d ${Math.floor((s % 86400) / 3600)}\u00a0h`;
  };
  // In one unit, for narrow places.
  const coarse = (secs) => duration(secs).split(" ")[0];
  const clock = (moment) => moment.toLocaleTimeString("en-GB");
  // The ends of an interval.
  const interval = (estimate, format = signed) =>
    estimate.lower === null || estimate.upper === null
      ? "no interval" : `[${format(estimate.lower)}, ${format(estimate.upper)}]`;
  // Of whoever answered; holding claims nothing.
  const judgedOf = (answer) => answer.verdict ?? "nothing";
  const verdictOf = (model) => {
    if (!model) return "missing";
    return model.status === "served" ? model.verdict ?? "not_judged" : model.status;
  };
  // What was shown, not what may be done with it: an accepted model can still lose money.
  const VERDICTS = { accepted: "skill shown", rejected: "no skill shown", untestable: "too few rows",
    missing: "no model", nothing: "no answer" };
  // For narrow places; the full name stands in the column, the log and the API.
  const SOURCES = { ML_PER_COIN_V1: "model", PRO: "analyzer", FALLBACK_RSI_MA: "RSI+MA rule",
    FALLBACK_MOMENTUM: "momentum rule", FALLBACK_NEUTRAL: "nobody" };
  const verdictWords = (verdict) => VERDICTS[verdict] ?? words(verdict.replace("_coin", " a coin"));
  const tested = (answer) => (answer.probabilities ? modelOf(answer) : null);
  const hitText = (rate) => "where the price moved after its LONG or SHORT, it was right in "
    + `${rate.value.toFixed(3)} ${interval(rate, (end) => end.toFixed(3))} of ${rate.n_moves} cases `
    + `(bars until ${rate.until.slice(0, 10)})`;
  const judgedText = (answer) => {
    if (answer.hit_rate) return hitText(answer.hit_rate);
    if (judgedOf(answer) === "nothing") return "No source had an answer, so the answer is to hold.";
    if (answer.verdict === "unjudged") return "What this source is worth has not been measured here.";
    if (answer.verdict === "too_few_answers") return "Its directions on this market are too few to tell it from a coin.";
    return tested(answer)?.reasons?.join("; ") ?? "";
  };
  const ageOf = (answer) =>
    answer.age_secs === null ? null : answer.age_secs + (performance.now() - state.received) / 1000;
  const modelOf = (answer) => state.models.get(`${answer.symbol} ${answer.tf}`);

  // -- the address --------------------------------------------------------------------------
  const readHash = () => {
    const found = new URLSearchParams(location.hash.slice(1));
    const sort = found.get("sort") ?? "symbol";
    state.tf = found.get("tf") ?? "";
    state.descending = sort.startsWith("-");
    state.sort = sort.replace(/^-/, "");
    if (!COLUMNS.some((column) => column.id === state.sort)) state.sort = "symbol";
    state.text = found.get("q") ?? "";
    state.signal = found.get("signal") ?? "";
    state.verdict = found.get("verdict") ?? "";
    state.market = found.get("market") ?? "";
  };
  const writeHash = () => {
    const kept = new URLSearchParams();
    const sort = `${state.descending ? "-" : ""}${state.sort}`;
    const entries = { tf: state.tf, sort: sort === "symbol" ? "" : sort, q: state.text, signal: state.signal,
      verdict: state.verdict, market: state.market };
    for (const [key, value] of Object.entries(entries)) if (value) kept.set(key, value);
    history.replaceState(null, "", `#${kept}`);
  };

  // -- asking the server --------------------------------------------------------------------
  class Locked extends Error {}
  class Refused extends Error {
    constructor(status, message, code) {
      super(message);
      this.status = status;
      this.code = code;
    }
  }
  const readKey = () => {
    try {
      return sessionStorage.getItem("percoin-key") ?? "";
    } catch {
      return "";
    }
  };
  // Of the board and of the opened market only the newest question is waited for: an older
  // one is given up, and its answer never replaces a newer one.
  const asking = { board: new AbortController(), market: new AbortController() };
  const askAnew = (what) => {
    asking[what].abort();
    asking[what] = new AbortController();
    return asking[what].signal;
  };
  const get = async (address, current) => {
    const key = readKey();
    const response = await fetch(address, {
      headers: key ? { "X-API-Key": key } : {},
      signal: AbortSignal.any([current, AbortSignal.timeout(TIMEOUT_MS)]),
      cache: "no-store",
    });
    if (response.status === 401) throw new Locked();
    if (!response.ok) {
      const problem = await response.json().catch(() => null);
      throw new Refused(response.status, problem?.error?.message ?? `status ${response.status}`,
        problem?.error?.code);
    }
    const content = await response.json();
    current.throwIfAborted();
    return content;
  };
  // A server that keeps no track record does not have its addresses; that is no failure.
  const getOrNull = (current, route, address = route) => {
    if (!state.routes.includes(route)) return Promise.resolve(null);
    return get(address, current).catch((error) => {
      if (error instanceof Refused && error.status === 404) return null;
      throw error;
    });
  };
  // While the track record cannot be read the answers go on.
  const UNREADABLE = { isUnreadable: true };
  const getRecord = (current, route, address) =>
    getOrNull(current, route, address).catch((error) => {
      const isSlow = error.name === "TimeoutError" && !current.aborted;
      if (isSlow || error.code === "record_unavailable") return UNREADABLE;
      throw error;
    });

  const update = async (current) => {
    if (state.timeframes.length === 0 || performance.now() - state.slowAt > SLOW_MS) await updateSlow(current);
    const content = await get(`/api/predictions?tf=${encodeURIComponent(state.tf)}`, current);
    state.answers = content.predictions;
    state.received = performance.now();
  };
  const updateSlow = async (current) => {
    if (state.slowAt <= 0) {
      const described = await get("/openapi.json", current);
      state.routes = Object.keys(described.paths);
      by("version").textContent = described.info.version;
    }
    const ofTf = state.tf ? `?tf=${encodeURIComponent(state.tf)}` : "";
    const [models, scoreboard] = await Promise.all([
      get("/api/models", current), getRecord(current, "/api/scoreboard", `/api/scoreboard${ofTf}`),
    ]);
    state.models = new Map(models.models.map((model) => [`${model.symbol} ${model.tf}`, model]));
    state.timeframes = [...new Set(models.models.map((model) => model.tf))];
    if (!state.timeframes.includes(state.tf)) state.tf = state.timeframes[0];
    // While the record of a server that has just begun still grows, it is asked for at every turn.
    const isGrowing = scoreboard?.recording
      && (scoreboard.standings.length === 0 || scoreboard.standings.length !== state.scoreboard?.standings?.length);
    state.scoreboard = scoreboard;
    state.slowAt = isGrowing ? performance.now() - SLOW_MS : performance.now();
    showTimeframes();
    showScoreboard();
  };

  const poll = async () => {
    clearTimeout(state.timer);
    if (document.hidden) return;
    const current = askAnew("board");
    let wait = POLL_MS;
    try {
      await update(current);
      state.failures = 0;
      state.downSince = null;
      state.isLocked = false;
      show();
      await updateMarket();
    } catch (error) {
      if (current.aborted) return;
      if (error instanceof Locked) {
        state.isLocked = true;
        showConnection();
        return;
      }
      state.failures += 1;
      state.downSince ??= new Date();
      state.problem = error instanceof Refused ? error.message : "";
      wait = Math.min(LONGEST_WAIT_MS, 1000 * 2 ** (state.failures - 1));
      // Another server may answer next, with other models.
      state.slowAt = -Infinity;
      showConnection();
    }
    if (current.aborted) return;
    clearTimeout(state.timer);
    state.timer = setTimeout(poll, wait);
  };

  const showConnection = () => {
    const isDown = state.downSince !== null;
    root.classList.toggle("is-down", isDown);
    by("banner").hidden = !isDown || state.isLocked;
    if (isDown) {
      const since = clock(state.downSince);
      by("banner").textContent = state.problem
        ? `The server has not answered properly since ${since}: ${state.problem}. What is shown is older.`
        : `Server unreachable since ${since}. What is shown is older; the page goes on asking.`;
    }
    by("key-form").hidden = !state.isLocked;
    by("key-problem").hidden = !(state.isLocked && readKey());
    by("content").hidden = state.isLocked || state.received === 0;
    tick();
  };

  // -- the table ------------------------------------------------------------------------------
  const shares = (answer) => {
    if (!answer.probabilities) return none();
    const told = charts.CLASSES.map((name) => `${name} ${percent(answer.probabilities[name], 1)}`).join(", ");
    const bar = h("span", { class: "shares", role: "img", "aria-label": told, title: told });
    for (const name of charts.CLASSES) {
      const part = h("i", { class: name });
      part.style.width = `${answer.probabilities[name] * 100}%`;
      bar.append(part);
    }
    return bar;
  };
  const none = () => h("span", { class: "soft" }, "–");
  // A model's confidence is a probability, a rule's is not: they are never told or sorted as one.
  const probability = (answer) => (answer.probabilities ? answer.confidence : null);
  const score = (answer) => (answer.probabilities || answer.source === "FALLBACK_NEUTRAL" ? null : answer.confidence);
  const confidence = (answer) => {
    if (answer.probabilities) return [percent(answer.confidence), h("span", { class: "unit" }, "probability")];
    return score(answer) === null ? [] : [h("span", { class: "unit" }, "score"), ` ${answer.confidence.toFixed(2)}`];
  };
  const chip = (verdict, title = "") => h("span", { class: `chip ${verdict}`, title }, verdictWords(verdict));
  const skillCell = (model) => {
    if (!model?.skill) return none();
    return [signed(model.skill.value), h("small", { class: "ends" }, interval(model.skill))];
  };
  const hitCell = ({ hit_rate: rate }) => {
    if (!rate) return none();
    return [rate.value.toFixed(3), h("small", { class: "ends" }, interval(rate, (end) => end.toFixed(3)))];
  };
  const ageCell = (answer) => {
    const age = ageOf(answer);
    if (age === null) return "no bars";
    return answer.stale ? [coarse(age), h("small", { class: "ends" }, "stale")] : coarse(age);
  };
  const adviceOf = (answer) => advice.of(answer, ageOf(answer));

  const COLUMNS = [
    { id: "symbol", name: "Market", kind: "", key: (a) => a.symbol },
    { id: "signal", name: "Signal", kind: "", key: (a) => SIGNALS.indexOf(a.pred),
      cell: (a) => h("span", { class: `signal ${a.pred}` }, words(a.pred)) },
    { id: "use", name: "What to do", kind: "wide use", key: (a) => adviceOf(a).short, cell: (a) => adviceOf(a).short, isAging: true },
    { id: "confidence", name: "Probability", kind: "num confidence", first: -1, key: probability,
      cell: (a) => (probability(a) === null ? none() : percent(a.confidence)) },
    { id: "score", name: "Rule's score", kind: "num wide optional extra", first: -1, key: score,
      cell: (a) => (score(a) === null ? none() : a.confidence.toFixed(2)) },
    { id: "probabilities", name: "Short · no trade · long", kind: "wide optional extra",
      first: -1, key: (a) => a.probabilities?.LONG ?? null, cell: shares },
    { id: "source", name: "Source", kind: "wide", key: (a) => a.source, cell: (a) => a.source },
    { id: "verdict", name: "Source's test", kind: "wide", key: judgedOf,
      cell: (a) => chip(judgedOf(a), judgedText(a)) },
    { id: "skill", name: "Test skill [95 %]", kind: "num wide optional", first: -1,
      key: (a) => tested(a)?.skill?.value ?? null, cell: (a) => skillCell(tested(a)) },
    { id: "hits", name: "Hit rate", kind: "num wide optional", first: -1,
      key: (a) => a.hit_rate?.value ?? null, cell: hitCell },
    { id: "close", name: "Close", kind: "num wide", first: -1, key: (a) => a.close,
      cell: (a) => (a.close === null ? "–" : charts.price(a.close)) },
    { id: "age", name: "Age", kind: "num age", key: (a) => ageOf(a), cell: ageCell, isAging: true },
  ];

  // A table that may be wider than its place; the arrow keys scroll it.
  const sideways = (label, table) => h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, table);

  const showHead = () => {
    const heads = COLUMNS.map((column) => {
      const isSorted = column.id === state.sort;
      const sorted = isSorted ? (state.descending ? "descending" : "ascending") : null;
      return h("th", { scope: "col", class: column.kind, "aria-sort": sorted, "data-column": column.id },
        h("button", { type: "button" }, column.name));
    });
    const row = by("board").tHead.rows[0];
    const focused = row.contains(document.activeElement) ? document.activeElement.parentNode.dataset.column : null;
    row.replaceChildren(...heads);
    if (focused) row.querySelector(`[data-column="${focused}"] button`).focus();
  };

  const sortBy = (id) => {
    const column = COLUMNS.find((each) => each.id === id);
    if (state.sort === id) state.descending = !state.descending;
    else [state.sort, state.descending] = [id, column.first === -1];
    changed();
  };

  const compare = (a, b) => {
    const key = COLUMNS.find((column) => column.id === state.sort).key;
    const [x, y] = [key(a), key(b)];
    // What is not known stays below, whichever way the rest is sorted.
    if (x === null || y === null) return (x === null) - (y === null);
    const order = typeof x === "string" ? x.localeCompare(y) : x - y;
    return (state.descending ? -order : order) || a.symbol.localeCompare(b.symbol);
  };

  const isWanted = (answer) => {
    const verdict = judgedOf(answer);
    const isSignal = !state.signal || answer.pred === state.signal || (state.signal === "stale" && answer.stale);
    const hay = `${answer.symbol} ${answer.pred} ${answer.source} ${verdictWords(verdict)} ${verdict}`.toLowerCase();
    return isSignal && (!state.verdict || verdict === state.verdict) && hay.includes(state.text.trim().toLowerCase());
  };

  // A row is made once and changed in place: the focus and a selection stay.
  const rows = new Map();
  const rowOf = (symbol) => {
    if (!rows.has(symbol)) {
      const row = h("tr", { "data-symbol": symbol }, COLUMNS.map((column, k) => k
        ? h("td", { class: column.kind })
        : h("th", { scope: "row" }, h("button", { type: "button", "aria-haspopup": "dialog" }, symbol),
          h("span", { class: "made-up", hidden: true }, "simulated"), h("small", { class: "under" }))));
      rows.set(symbol, row);
    }
    return rows.get(symbol);
  };
  const fill = (answer) => {
    const row = rowOf(answer.symbol);
    const verdict = judgedOf(answer);
    const said = JSON.stringify([answer.ts, answer.pred, answer.confidence, answer.source, answer.stale, verdict, answer.hit_rate,
      modelOf(answer)?.version_id, answer.tf, adviceOf(answer).short]);
    if (row.dataset.said === said) return row;
    const before = state.seen.get(`${answer.symbol} ${answer.tf}`);
    const now = `${answer.ts} ${answer.pred} ${answer.confidence}`;
    state.seen.set(`${answer.symbol} ${answer.tf}`, now);
    row.classList.remove("changed");
    if (before !== undefined && before !== now) {
      row.getBoundingClientRect();
      row.classList.add("changed");
    }
    row.dataset.said = said;
    row.classList.toggle("stale", answer.stale);
    row.querySelector(".made-up").hidden = !advice.isSimulated(answer.bars);
    const isAnswer = verdict !== "nothing";
    row.querySelector(".under").textContent = [adviceOf(answer).short, SOURCES[answer.source] ?? answer.source,
      ...(isAnswer ? [verdictWords(verdict)] : [])].join(" · ");
    COLUMNS.forEach((column, k) => {
      if (k) row.cells[k].replaceChildren(...[column.cell(answer)].flat());
    });
    return row;
  };

  const showBoard = () => {
    const shown = state.answers.filter(isWanted).sort(compare).map(fill);
    const body = by("board").tBodies[0];
    const isSame = shown.length === body.rows.length && shown.every((row, k) => row === body.rows[k]);
    if (!isSame) {
      const focused = document.activeElement;
      body.replaceChildren(...shown);
      if (focused !== document.activeElement && body.contains(focused)) focused.focus();
    }
    by("nothing").hidden = shown.length > 0;
  };

  const showTiles = () => {
    const counts = [...SIGNALS.map((name) => [name, state.answers.filter((a) => a.pred === name).length]),
      ["stale", state.answers.filter((a) => a.stale).length]];
    const made = by("tiles").children;
    counts.forEach(([name, count], k) => {
      const tile = made[k] ?? h("button", { type: "button", class: "tile", "data-signal": name },
        h("b", { class: name === "stale" ? "stale-word" : name }), words(name));
      if (!made[k]) by("tiles").append(tile);
      tile.firstChild.textContent = count;
      tile.setAttribute("aria-pressed", String(state.signal === name));
    });
    const verdicts = [...new Set(state.answers.map(judgedOf))].sort();
    if (state.verdict && !verdicts.includes(state.verdict)) verdicts.push(state.verdict);
    const wanted = ["", ...verdicts];
    const select = by("verdict");
    if ([...select.options].map((option) => option.value).join() !== wanted.join()) {
      select.replaceChildren(...wanted.map((value) =>
        h("option", { value }, value ? verdictWords(value) : "any test")));
    }
    select.value = state.verdict;
    if (by("filter").value !== state.text) by("filter").value = state.text;
  };

  const showTimeframes = () => {
    by("timeframes").replaceChildren(...state.timeframes.map((tf) =>
      h("button", { type: "button", "aria-pressed": String(tf === state.tf), "data-tf": tf }, tf)));
  };

  const show = () => {
    showConnection();
    showHead();
    showTiles();
    showBoard();
  };
  const changed = () => {
    writeHash();
    show();
  };

  // Ages go on between two answers.
  const tick = () => {
    const status = by("status");
    status.className = `status ${state.downSince ? "down" : !state.received ? "" : isAllOld() ? "old" : "live"}`;
    if (state.isLocked) status.textContent = "locked";
    else if (state.downSince) status.textContent = `unreachable since ${clock(state.downSince)}`;
    else if (state.received) status.textContent = statusText();
    showNotice();
    for (const column of COLUMNS.filter((each) => each.isAging)) {
      const place = COLUMNS.indexOf(column);
      for (const answer of state.answers) {
        const cell = rows.get(answer.symbol)?.cells[place];
        const made = h("td", {}, ...[column.cell(answer)].flat());
        if (cell && cell.textContent !== made.textContent) cell.replaceChildren(...made.childNodes);
      }
    }
  };
  // What is old says so first: an answer of the server just now may be made on bars of last year.
  const isAllOld = () => state.answers.length > 0 && state.answers.every((answer) => answer.stale);
  const newestAge = () => Math.min(...state.answers.map(ageOf).filter((age) => age !== null));
  const statusText = () => {
    const asked = `asked ${duration((performance.now() - state.received) / 1000)} ago`;
    const nOld = state.answers.filter((answer) => answer.stale).length;
    if (isAllOld()) return Number.isFinite(newestAge()) ? `old bars, ${asked}` : `no bars, ${asked}`;
    return nOld ? `live but for ${nOld} of ${state.answers.length}, ${asked}` : `live, ${asked}`;
  };
  const showNotice = () => {
    const known = state.answers.filter((answer) => answer.ts);
    const madeUp = known.filter((answer) => advice.isSimulated(answer.bars));
    const said = [];
    if (madeUp.length > 0) {
      const which = madeUp.length === known.length ? "These markets are simulated" : `${madeUp.length} of these markets are simulated`;
      said.push(`${which}: percoin made their bars up, and they say nothing about a real market.`);
    }
    if (isAllOld() && known.length > 0) {
      const newest = Math.max(...known.map((answer) => Date.parse(answer.ts)));
      said.push(`All bars are old: the newest closed at ${charts.stamp(newest)} UTC, ${coarse(newestAge())} ago. There is nothing to act on.`);
    }
    by("notice").hidden = said.length === 0;
    const text = said.join(" ");
    if (by("notice").textContent !== text) by("notice").textContent = text;
  };

  // -- the track record -------------------------------------------------------------------------
  // A number with its interval below it; without one, a word and what is missing for it.
  const estimated = (estimate, format, word = "–", missing = "") => {
    if (!estimate) return h("span", { class: "soft", title: missing }, word);
    return [format(estimate.value), h("small", { class: "ends" }, interval(estimate, format))];
  };
  // The strongest of the simple forecasters on the same rows.
  const bestBaseline = (standing) => {
    const known = Object.entries(standing.baselines).filter(([, scored]) => scored.skill);
    if (known.length === 0) return none();
    const [name, scored] = known.reduce((best, each) => (each[1].skill.value > best[1].skill.value ? each : best));
    return [`${words(name)} `, ...estimated(scored.skill, signed)];
  };
  // Of the version that is served now: how far its features have moved.
  const driftOf = (standing) =>
    state.scoreboard.drift.find((drift) => drift.symbol === standing.symbol && drift.version_id === standing.version_id);
  const driftCell = (standing) => {
    const drift = driftOf(standing);
    if (!drift) return "–";
    if (!drift.worst) return h("span", { class: "soft", title: drift.unknown }, "unknown");
    const { psi, ratio } = drift.shifts[drift.worst];
    const told = `Population stability index ${psi.toFixed(2)} over the newest 500 bars, `
      + `${ratio.toFixed(1)} times the furthest of as many train rows`;
    return h("span", { title: told }, `${drift.worst} ${ratio.toFixed(1)}×`);
  };
  // How often the price came to lie within each band of the expected move.
  const bandsCell = ({ move }) => {
    if (!move) return "–";
    const ends = (share) => (share.lower === null ? "" : ` ${interval(share, percent)}`);
    const told = Object.entries(move.coverage).map(([level, share]) => `${level} %: ${percent(share.value, 1)}${ends(share)}`);
    const shares = Object.values(move.coverage).map((share) => (share.value * 100).toFixed(0)).join(" · ");
    return [h("span", { title: `${told.join(", ")} of ${move.n_rows} prices` }, `${shares} %`),
      h("small", { class: "ends" }, `QLIKE ${move.qlike.value.toFixed(3)}`)];
  };
  const STANDING = [
    ["Market", "", (row) => row.symbol],
    ["Source", "", (row) => row.source],
    ["Version", "", (row) => (row.version_id
      ? h("span", { title: row.version_id }, `${row.version_id.slice(0, 13)}…`) : "–")],
    ["Resolved", "num", (row) => row.n_resolved],
    ["Open", "num", (row) => row.n_written - row.n_resolved - row.n_void],
    ["Late, not scored", "num", (row) => row.n_late],
    ["Skill [95 %]", "num", (row) => estimated(row.skill, signed, "–", row.too_few)],
    ["Best baseline [95 %]", "num", bestBaseline],
    ["Hit rate [95 %]", "num", (row) => estimated(row.hit_rate, percent, row.too_few ? "too few" : "–", row.too_few)],
    ["Bands held", "num", bandsCell],
    ["Furthest drift", "num", driftCell],
  ];
  const isScored = (standing) => standing.skill !== null || standing.hit_rate !== null;
  const standingTable = (standings, label) => sideways(label,
    h("table", { class: "plain" },
      h("thead", {}, h("tr", {}, STANDING.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
      h("tbody", {}, standings.map((row) => h("tr", {}, STANDING.map(([, kind, cell]) =>
        h("td", { class: kind }, ...[cell(row)].flat())))))));
  // Records too short for a score are counted in one line; whoever wants to see them opens it.
  const unscoredCard = (standings, isOpen) => {
    const sum = (name) => standings.reduce((total, row) => total + row[name], 0);
    const told = `${standings.length} ${standings.length === 1 ? "record has" : "records have"} too few outcomes for a score: `
      + `${sum("n_resolved")} known, ${sum("n_written") - sum("n_resolved") - sum("n_void")} still open, ${sum("n_late")} given too late to count`;
    return h("details", { class: "card unscored", open: isOpen }, h("summary", {}, told),
      standingTable(standings, "Records without a score"));
  };
  const showScoreboard = () => {
    const standings = state.scoreboard?.standings ?? [];
    const place = by("scoreboard");
    if (standings.length === 0) {
      place.replaceChildren(h("p", { class: "note card" }, state.scoreboard?.isUnreadable
        ? "The track record cannot be read now. The answers above are still updated."
        : "No track record yet: answers count from the moment they are given, and are settled once their outcome is known."));
      return;
    }
    const isOpen = place.querySelector(".unscored")?.open ?? false;
    const scored = standings.filter(isScored);
    const others = standings.filter((row) => !isScored(row));
    place.replaceChildren(
      scored.length ? h("div", { class: "card" }, standingTable(scored, "Scored records"))
        : h("p", { class: "note card" }, "Nothing can be scored yet. A score needs answers that were given before anybody could know their outcome, and enough of them."),
      others.length ? unscoredCard(others, isOpen) : "");
  };

  // -- one market -------------------------------------------------------------------------------
  const openMarket = (symbol) => {
    state.market = symbol;
    state.detail = { key: "", ts: "", at: 0 };
    writeHash();
    by("market-name").replaceChildren(symbol);
    by("market-body").replaceChildren(h("p", { class: "note" }, "loading"));
    if (!by("market").open) by("market").showModal();
    updateMarket().catch(() => poll());
  };

  const updateMarket = async () => {
    const symbol = state.market;
    const answer = state.answers.find((each) => each.symbol === symbol);
    if (!symbol || !answer) return;
    if (!by("market").open) by("market").showModal();
    const key = `${symbol} ${answer.tf} ${modelOf(answer)?.version_id}`;
    const isNew = state.detail.key !== key || state.detail.ts !== answer.ts;
    if (!isNew && performance.now() - state.detail.at < SLOW_MS) return;
    const path = encodeURIComponent(symbol);
    const current = askAnew("market");
    try {
      const [bars, past, summary] = await Promise.all([
        getOrNull(current, "/api/bars/{symbol}", `/api/bars/${path}?tf=${answer.tf}&limit=200`),
        getRecord(current, "/api/history/{symbol}", `/api/history/${path}?tf=${answer.tf}&limit=200`),
        get(`/api/predictions/${path}/summary`, current),
      ]);
      state.detail = { key, ts: answer.ts, at: performance.now(), bars, past, summary };
    } catch (error) {
      if (current.aborted) return;
      throw error;
    }
    showMarket(answer);
  };

  const showMarket = (answer) => {
    const { bars, past, summary } = state.detail;
    by("market-name").replaceChildren(answer.symbol, h("small", {}, answer.tf),
      h("span", { class: `signal ${answer.pred}` }, words(answer.pred)),
      h("span", {}, ...confidence(answer)), h("span", { class: "soft" }, answer.source),
      advice.isSimulated(answer.bars) ? h("span", { class: "made-up" }, "simulated") : "",
      answer.stale ? h("span", { class: "stale-word" }, "stale") : "");
    const signals = past?.predictions ?? [];
    const body = by("market-body");
    const width = Math.max(300, body.clientWidth - (innerWidth < 760 ? 26 : 34));
    const half = innerWidth < 760 ? width : Math.max(300, (width - 48) / 2);
    const scrolled = by("market").scrollTop;
    body.replaceChildren(
      adviceCard(answer), facts(answer), candleCard(answer, bars, past, width),
      h("div", { class: "pair" }, probabilityCard(signals, half),
        answer.probabilities ? skillCard(modelOf(answer), half) : worthCard(answer)),
      h("div", { class: "pair" }, askedCard(answer), summaryCard(summary)),
      pastCard(signals));
    by("market").scrollTop = scrolled;
  };

  // What can be done with the answer: the first thing that is asked of it.
  const worthText = (answer) => {
    if (answer.hit_rate && !answer.probabilities) return `Of its source: ${hitText(answer.hit_rate)}.`;
    const skill = tested(answer)?.skill;
    if (!skill) return "";
    const better = `${Math.abs(skill.value * 100).toFixed(1)}\u00a0% ${skill.value >= 0 ? "better" : "worse"}`;
    return `Its model's test: ${verdictWords(judgedOf(answer))}; over ${skill.n_rows} test rows its probabilities were ${better} `
      + "than quoting how often each outcome came in training. Skill is not profit.";
  };
  const adviceCard = (answer) => {
    const { short, why } = adviceOf(answer);
    const told = advice.sentences(answer, ageOf(answer), modelOf(answer), worthText(answer), charts.stamp, duration);
    return h("section", { class: "card", id: "advice" }, h("h3", {}, "What to do with this"),
      h("p", { class: "advice-short" }, h("b", {}, short), `: ${why}.`),
      ...told.map((sentence) => h("p", {}, sentence)));
  };

  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const barCount = (number) => (number === 1 ? "1 bar" : `${number} bars`);
  // Whether the backtest of the judgement would trade the signal, and why.
  const tradeFact = (answer) => {
    if (answer.would_trade === null || answer.pred === "NO_TRADE") return [];
    const threshold = answer.threshold.toFixed(3);
    let why = `confidence ${answer.confidence.toFixed(3)}, judged threshold ${threshold}`;
    if (answer.threshold >= 1) why = "no threshold made a profit on validation rows";
    return [fact("Would be traded", [answer.would_trade ? "yes" : "no", h("small", { class: "ends" }, why)])];
  };
  // Entry, stop and targets, each with how often it was reached when such signals were judged.
  const levelFacts = (answer, money) => {
    if (typeof answer.entry_price !== "number") return [];
    const reached = answer.levels_reached;
    const level = (name, price, share) => fact(name, share
      ? [money(price), h("small", { class: "ends" }, `${percent(share.value, 1)} `, h("span", { class: "interval" },
        interval(share, (end) => (end * 100).toFixed(1))))] : money(price));
    return [fact("Entry", money(answer.entry_price)), level("Stop", answer.stop_loss, reached?.stop_loss),
      ...["tp1", "tp2", "tp3"].map((name, k) => level(`Target ${k + 1}`, answer[name], reached?.[name]))];
  };
  const reachedNote = ({ levels_reached: reached, horizon_bars: horizon }) => (reached
    ? [h("p", { class: "below reached" }, `Under stop and targets: how often each was reached within ${barCount(horizon)} when `
      + `${reached.n_signals} such signals were judged. A target counts if the stop was not reached before it.`)] : []);
  const facts = (answer) => {
    const money = (value) => (typeof value === "number" ? charts.price(value) : "–");
    const known = [fact("Close", money(answer.close)),
      fact("Bar closed (UTC)", answer.ts ? charts.stamp(Date.parse(answer.ts)) : "–"), fact("Bars", answer.bars ?? "–")];
    if (answer.valid_until) {
      known.push(fact("Valid until (UTC)", [charts.stamp(Date.parse(answer.valid_until)),
        h("small", { class: "ends" }, barCount(answer.horizon_bars))]));
    }
    if (answer.compared_with) {
      known.push(fact("Signal", ["relative", h("small", { class: "ends" },
        `better or worse than the mean of ${answer.compared_with.length} markets, whatever the price does`)]));
    }
    known.push(...moveFacts(answer), ...tradeFact(answer));
    const levels = levelFacts(answer, money);
    return h("div", {}, h("dl", { class: "facts" }, known),
      levels.length ? h("dl", { class: "facts", id: "levels" }, levels) : null, ...reachedNote(answer));
  };

  // How far the price is expected to move, and until when.
  const reachOf = (answer) => `until ${charts.stamp(Date.parse(answer.bands_at)).slice(5)}`;
  const bandText = ({ lower, upper }) => `${charts.price(lower)} to ${charts.price(upper)}`;
  const moveFacts = (answer) => {
    if (typeof answer.expected_move !== "number") return [];
    const bands = Object.entries(answer.bands).map(([level, band]) => `${level} %: ${bandText(band)}`);
    return [h("div", { class: "broad" }, h("dt", {}, "Expected move"), h("dd", {}, `±\u202f${answer.expected_move.toFixed(2)} %`,
      bands.map((told) => h("small", { class: "ends" }, told))))];
  };
  // The cone begins at the close of the newest bar; an answer on an older one has none.
  const coneOf = (answer, bars) => {
    const span = bars.open_time[1] - bars.open_time[0];
    if (!answer.bands || Date.parse(answer.ts) !== bars.open_time.at(-1) + span) return null;
    const said = Object.entries(answer.bands).map(([level, band]) => `${level} %: ${bandText(band)}`);
    return { close: answer.close, bands: answer.bands, n_bars: (Date.parse(answer.bands_at) - Date.parse(answer.ts)) / span,
      words: `Expected ${reachOf(answer)}: ${said.join(", ")}` };
  };

  const candleCard = (answer, bars, past, width) => {
    const signals = past?.predictions ?? [];
    if (!bars || bars.open_time.length < 2) {
      return h("section", { class: "card" }, h("h3", {}, "Candles"), h("p", { class: "note" }, "No bars have come yet."));
    }
    const reading = h("p", { class: "reading" });
    const idle = `Last ${bars.open_time.length} bars; hollow bodies closed higher. Point at one to read it.`;
    reading.textContent = idle;
    const levels = typeof answer.entry_price === "number"
      ? { entry: answer.entry_price, stop: answer.stop_loss, "target 1": answer.tp1, "target 2": answer.tp2, "target 3": answer.tp3 } : {};
    const cone = coneOf(answer, bars);
    const picture = charts.candles(bars, signals, levels, cone, width,
      (said) => { reading.textContent = said || idle; });
    const key = signals.length
      ? h("p", { class: "keys" }, h("span", {}, "▲ long, ▼ short, as given at the time"),
        h("span", {}, "filled: came true"), h("span", {}, "hollow: did not"), h("span", {}, "dashed: not known yet, or no outcome"))
      : h("p", { class: "below" }, past?.isUnreadable ? "The track record cannot be read now."
        : "No track record yet: past signals appear here once they have been served and recorded. None are drawn in hindsight.");
    return h("section", { class: "card" }, reading, picture, key,
      cone ? h("p", { class: "below" }, `The cone: where 50, 80 and 95 of 100 closes are expected ${reachOf(answer)}.`) : null);
  };

  const probabilityCard = (signals, width) => {
    const known = signals.filter((signal) => signal.probabilities);
    const card = h("section", { class: "card", id: "probabilities" }, h("h3", {}, "Probabilities over time"));
    if (known.length === 0) {
      card.append(h("p", { class: "below" }, "No answers of a model have been recorded yet."));
      return card;
    }
    const reading = h("p", { class: "reading" });
    card.append(reading, charts.probabilities(known, width, (said) => { reading.textContent = said; }),
      h("p", { class: "keys" }, ["SHORT", "NO_TRADE", "LONG"].map((name) => h("b", { class: name }, words(name)))));
    return card;
  };

  const skillCard = (model, width) => {
    const card = h("section", { class: "card", id: "skill" }, h("h3", {}, "Skill on the test rows"));
    if (!model?.skill) {
      card.append(h("p", { class: "below" }, model?.problem ?? "This model says nothing about its test."));
      return card;
    }
    const { skill } = model;
    const row = (name, estimate, kind) => ({ name, ...estimate, kind });
    const compared = [row("this model", skill, verdictOf(model))];
    if (skill.baseline) compared.push(row(words(skill.best_baseline), skill.baseline, "NO_TRADE"));
    if (skill.recent) compared.push(row("over recent shares", skill.recent, verdictOf(model)));
    card.append(chip(verdictOf(model)), charts.intervals(compared, "skill: share of the log-loss removed", width),
      h("p", { class: "below" }, `Log-loss skill over the frequencies of training, ${percent(skill.confidence)} intervals, `
        + `${skill.n_rows} test rows: ${signed(skill.value)} ${interval(skill)}; rival ${words(skill.best_baseline ?? "none")}`
        + `${skill.baseline ? ` ${signed(skill.baseline.value)} ${interval(skill.baseline)}` : ""}`
        + `${skill.against_best ? `; ahead of it by ${signed(skill.against_best.value)} ${interval(skill.against_best)} nats a row` : ""}`
        + `${skill.recent ? `; skill over the recent class shares ${signed(skill.recent.value)} ${interval(skill.recent)}` : ""}.`));
    if (model.reasons.length) card.append(h("ul", { class: "list" }, model.reasons.map((reason) => h("li", {}, reason))));
    if (model.refit) card.append(h("p", { class: "below" }, `${model.refit}.`));
    if (model.trained_on) {
      card.append(h("p", { class: "below" }, `Version ${model.version_id}, made on ${model.trained_on.n_bars} bars `
        + `(${model.trained_on.bars}) that open from ${model.trained_on.first_open_time} to ${model.trained_on.last_open_time}.`));
    }
    return card;
  };

  const worthCard = (answer) => h("section", { class: "card", id: "skill" },
    h("h3", {}, answer.verdict ? `What ${answer.source} has been worth here` : "What stands behind this answer"),
    chip(judgedOf(answer)), h("p", { class: "below" }, judgedText(answer)));

  const askedCard = (answer) => h("section", { class: "card" }, h("h3", {}, "Who was asked"),
    h("ol", { class: "asked" },
      answer.passed.map((passed) => h("li", {}, h("b", {}, passed.source), " passed: ", passed.detail || words(passed.reason))),
      h("li", {}, h("b", {}, answer.source), " answered", answer.detail ? `: ${answer.detail}` : "")));

  const summaryCard = (summary) => h("section", { class: "card" }, h("h3", {}, "All bar lengths"),
    sideways("All bar lengths", h("table", { class: "plain" }, h("tbody", {}, Object.values(summary.predictions).map((each) =>
      h("tr", { class: each.tf === state.tf ? "shown" : "" }, h("th", { scope: "row" }, each.tf),
        h("td", {}, h("span", { class: `signal ${each.pred}` }, words(each.pred))),
        h("td", { class: "num" }, ...confidence(each)), h("td", { class: "wide" }, each.source),
        h("td", { class: "stale-word" }, each.stale ? "stale" : "")))))));

  const PAST = [["Bar closed (UTC)", ""], ["Said", ""], ["Came", "wide"], ["Outcome", ""], ["Return after", "num"],
    ["Source", "wide"], ["Given", "wide"]];
  const pastCard = (signals) => {
    if (signals.length === 0) return h("span", {});
    const last = signals.slice(-20).reverse();
    return h("section", { class: "card past" }, h("h3", {}, "Last answers and what became of them"),
      sideways("Last answers", h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, PAST.map(([name, kind]) => h("th", { scope: "col", class: kind }, name)))),
        h("tbody", {}, last.map((each) => h("tr", {},
          h("td", {}, charts.stamp(Date.parse(each.ts))),
          h("td", {}, h("span", { class: `signal ${each.pred}` }, words(each.pred))),
          h("td", { class: "wide" }, each.label ? words(each.label) : "–"),
          h("td", {}, OUTCOME_WORDS[charts.outcome(each)]),
          h("td", { class: "num" }, typeof each.forward_return === "number" ? `${signed(each.forward_return * 100, 2)} %` : "–"),
          h("td", { class: "wide" }, each.source),
          h("td", { class: "wide" }, each.is_live === false ? "late" : "in time")))))));
  };

  // -- what people do -------------------------------------------------------------------------
  by("board").addEventListener("click", (event) => {
    const head = event.target.closest("thead th");
    if (head) sortBy(head.dataset.column);
    const row = event.target.closest("tbody tr");
    if (row && !String(getSelection())) openMarket(row.dataset.symbol);
  });
  by("timeframes").addEventListener("click", (event) => {
    const tf = event.target.dataset.tf;
    if (!tf) return;
    state.tf = tf;
    state.slowAt = -Infinity;
    asking.market.abort();
    writeHash();
    showTimeframes();
    poll();
  });
  by("tiles").addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    state.signal = state.signal === tile.dataset.signal ? "" : tile.dataset.signal;
    changed();
  });
  by("verdict").addEventListener("change", (event) => {
    state.verdict = event.target.value;
    changed();
  });
  by("filter").addEventListener("input", (event) => {
    state.text = event.target.value;
    changed();
  });
  by("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("percoin-key", by("key").value.trim());
    by("key").value = "";
    poll();
  });
  by("close").addEventListener("click", () => by("market").close());
  by("market").addEventListener("click", (event) => {
    if (event.target === by("market")) by("market").close();
  });
  by("market").addEventListener("close", () => {
    // The event comes a moment later: another market may have been opened by then.
    if (by("market").open) return;
    const row = rows.get(state.market);
    asking.market.abort();
    state.market = "";
    writeHash();
    row?.querySelector("button").focus();
  });
  addEventListener("hashchange", () => {
    asking.market.abort();
    readHash();
    if (!state.market && by("market").open) by("market").close();
    showTimeframes();
    poll();
  });
  let redraw = 0;
  addEventListener("resize", () => {
    clearTimeout(redraw);
    redraw = setTimeout(() => {
      const answer = state.answers.find((each) => each.symbol === state.market);
      if (answer && state.detail.summary) showMarket(answer);
    }, 150);
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  setInterval(tick, 1000);
  readHash();
  poll();
})();
