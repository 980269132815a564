// What the pages do without the server; everything else works without this file.
"use strict";

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea, select") || event.target.isContentEditable;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const field = document.querySelector("input[type=search]");
    if (field) {
      event.preventDefault();
      field.focus();
      field.select();
    }
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-all]")) {
    for (const box of document.querySelectorAll("input[name=id]")) box.checked = event.target.checked;
  }
  if (event.target.matches("select[data-submit]")) event.target.form.requestSubmit();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button && navigator.clipboard) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  }
});
