// Renders what pymdownx.arithmatex marks, with the KaTeX beside this file: nothing from the network.
// A block is a <div>, an equation in a line of text a <span>.
document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".arithmatex")) {
    katex.render(element.textContent, element, { displayMode: element.tagName === "DIV" });
  }
});
