"use strict";
// What can be done with an answer, in plain words: from what the answer itself says, nothing more.
const advice = (() => {
  const RULE_WORTH = {
    better_than_coin: "the rule was better than a coin here",
    not_told_from_coin: "the rule is no better than a coin here",
    worse_than_coin: "the rule was worse than a coin here",
    too_few_answers: "the rule gave too few directions here to be measured",
  };
  const isSimulated = (bars) => (bars ?? "").startsWith("simulated");
  const span = (count) => (count === 1 ? "the next bar" : `the next ${count} bars`);
  const percent = (share) => `${(share * 100).toFixed(0)}\u00a0%`;
  // How far the price has to move for LONG or SHORT, where the label rule has one number for it.
  const move = (model, word) => {
    const rule = model?.label_rule;
    return rule?.kind === "fixed_horizon" ? ` ${word} more than ${Number((rule.threshold * 100).toPrecision(3))}\u00a0%` : "";
  };
  // Milliseconds until the answer ends, by the server's clock; null where it does not say.
  const left = (answer, age) => (answer.valid_until === null || age === null ? null
    : Date.parse(answer.valid_until) - Date.parse(answer.ts) - age * 1000);

  const isOver = (answer, age) => {
    const rest = left(answer, age);
    return rest === null ? answer.stale : rest <= 0;
  };

  // Of a direction that is still good: the test of whoever gave it, and its threshold.
  const ofDirection = (answer) => {
    if (answer.verdict === "rejected") return ["do not use", "its model's test showed no skill"];
    if (answer.verdict === "untestable") return ["do not use", "its model's test had too few rows to show anything"];
    if (answer.would_trade) return ["would be traded", `its confidence reaches the ${percent(answer.threshold)} that its test traded from`];
    if (answer.would_trade === false && answer.threshold >= 1) return ["would not be traded", "no threshold made a profit on validation rows"];
    if (answer.would_trade === false) return ["would not be traded", `its confidence is below the ${percent(answer.threshold)} that its test traded from`];
    if (answer.verdict === "accepted") return ["skill shown", "its model's test showed skill; no threshold for trades is known"];
    if (answer.verdict === "better_than_coin") return ["weak hint", RULE_WORTH.better_than_coin];
    return ["do not use", RULE_WORTH[answer.verdict] ?? "what its source is worth has not been measured"];
  };

  // {short, why}: a few words for the table, and the reason.
  const of = (answer, age) => {
    if (answer.ts === null) return { short: "nothing", why: "there are no bars" };
    if (answer.source === "FALLBACK_NEUTRAL") return { short: "nothing", why: "no source had an answer" };
    if (isOver(answer, age)) return { short: "too old", why: "newer bars must have closed that it does not know" };
    if (answer.pred === "NO_TRADE") return { short: "stay out", why: "no move worth a trade is expected" };
    const [short, why] = ofDirection(answer);
    return { short, why };
  };

  // The whole answer as sentences: what it says, until when, what stands behind it.
  const sentences = (answer, age, model, worth, clock, duration) => {
    const found = [];
    if (isSimulated(answer.bars)) found.push("These bars are simulated: percoin made them up. It says nothing about a real market.");
    if (answer.ts === null || answer.source === "FALLBACK_NEUTRAL") return found;
    const horizon = answer.horizon_bars === null ? "" : ` over ${span(answer.horizon_bars)}`;
    const against = answer.compared_with ? `than the mean of ${answer.compared_with.length} markets, whatever its price does` : "";
    const sure = answer.probabilities ? `, with a probability of ${percent(answer.confidence)}` : "";
    if (answer.pred === "NO_TRADE") found.push(`It expects no move${move(model, "of")} either way${horizon}${sure}.`);
    else if (against) found.push(`It expects the market to do ${answer.pred === "LONG" ? "better" : "worse"} ${against}${horizon}${sure}.`);
    else found.push(`It expects the price to ${answer.pred === "LONG" ? "rise" : "fall"}${move(model, "by")}${horizon}${sure}.`);
    const rest = left(answer, age);
    if (rest !== null) {
      const when = `until ${clock(Date.parse(answer.valid_until))} UTC`;
      found.push(rest > 0 ? `It is valid ${when}, for another ${duration(rest / 1000)}.`
        : `It was valid ${when}: that was ${duration(-rest / 1000)} ago.`);
    }
    if (worth) found.push(worth);
    return found;
  };

  return { of, sentences, isSimulated };
})();
