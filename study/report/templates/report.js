// Looks a dataset size up in the answers that the analysis wrote. Computes nothing.
(() => {
  const data = JSON.parse(document.getElementById("case-data").textContent);
  const form = document.getElementById("case-form");
  const input = document.getElementById("case-size");
  const answer = document.getElementById("case-answer");

  const say = (text) => {
    const line = document.createElement("p");
    line.className = "hint";
    line.textContent = text;
    answer.append(line);
  };

  const look = () => {
    answer.replaceChildren();
    const typed = input.value.replace(/[\s,._']/g, "");
    if (typed === "") return;
    if (!/^\d+$/.test(typed)) return say("Type a whole number of examples, for example 3000.");
    const size = Number(typed);
    if (size < data.low || size > data.high) return say(data.outside);
    const found = data.answers.find((entry) => size <= entry.until);
    say(found.about);
    answer.insertAdjacentHTML("beforeend", found.card); // escaped when the report was written
  };

  form.hidden = false;
  input.addEventListener("input", look);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look();
  });
  // On paper there is nothing to click: what is folded is shown, and folded again.
  const opened = [];
  addEventListener("beforeprint", () => {
    for (const part of document.querySelectorAll("details:not([open])")) {
      part.open = true;
      opened.push(part);
    }
  });
  addEventListener("afterprint", () => {
    for (const part of opened.splice(0)) part.open = false;
  });
})();
