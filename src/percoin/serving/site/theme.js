"use strict";
// Runs before the page is drawn, so that it is never seen in the wrong colours.
(() => {
  const CHOICES = ["auto", "light", "dark"];
  const read = () => {
    try {
      return localStorage.getItem("percoin-theme") || "auto";
    } catch {
      return "auto";
    }
  };
  const show = (choice) => {
    if (choice === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = choice;
  };
  let choice = CHOICES.includes(read()) ? read() : "auto";
  show(choice);
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => {
      button.textContent = choice;
      button.setAttribute("aria-label", `Colours: ${choice}`);
    };
    tell();
    button.addEventListener("click", () => {
      choice = CHOICES[(CHOICES.indexOf(choice) + 1) % CHOICES.length];
      tell();
      show(choice);
      try {
        localStorage.setItem("percoin-theme", choice);
      } catch {
        // A browser that keeps nothing still shows the colours.
      }
    });
  });
})();
