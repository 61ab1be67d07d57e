// What widgets cannot be told from Python, done once for each panel that is shown. It stands in the
// onload of the panel's style element, which is `this`. Without it a panel works, but with the
// notebook's keys between its own, and with less for a screen reader.
const panel = this.closest(".labkit-panel");
if (panel && !panel.dataset.labkit) {
  panel.dataset.labkit = "complete";
  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  // In JupyterLab plain keys are commands also while a control of an output has the focus: ArrowDown
  // on a list goes to the next cell, "x" cuts the cell. Escape is the way back to them.
  panel.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && event.key === "Enter") return;
    event.stopPropagation();
  });
  // On the way down: text fields keep their keys to themselves.
  const leave = (event) => event.key === "Escape" && panel.closest(".jp-Cell")?.focus();
  panel.addEventListener("keydown", leave, { capture: true });

  const complete = () => {
    set(panel, "role", "group");
    set(panel, "aria-label", panel.querySelector("h4")?.textContent ?? "panel");
    for (const slider of panel.querySelectorAll(".widget-slider")) {
      const name = slider.querySelector(".widget-label")?.textContent ?? "";
      set(slider.querySelector("[role=slider]"), "aria-label", name);
      const typed = slider.querySelector(".widget-readout");
      set(typed, "role", "textbox");
      set(typed, "aria-label", `${name} as a number`);
    }
    const words = panel.querySelectorAll(".labkit-words p");
    panel.querySelectorAll("img.widget-image").forEach((image, number) => {
      const until = "Plot of the run under way; the sentences and the table say how it stands.";
      set(image, "alt", words[number]?.textContent ?? until);
    });
    // Text in a new element is announced by nobody: the widget around it stays, so it is live.
    for (const live of panel.querySelectorAll(".labkit-live")) {
      set(live, "role", "status");
      set(live, "aria-live", live.classList.contains("labkit-quiet") ? "off" : "polite");
    }
    // A table that is wider than the page is scrolled by arrows once the focus is on it.
    for (const area of panel.querySelectorAll(".widget-html-content")) {
      if (area.scrollWidth > area.clientWidth) set(area, "tabindex", "0");
      else area.removeAttribute("tabindex");
    }
    // Not `disabled`, which takes the focus away from a button that was just pressed.
    for (const button of panel.querySelectorAll(".widget-button")) {
      set(button, "aria-disabled", String(button.classList.contains("labkit-off")));
    }
  };
  const seen = { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] };
  new MutationObserver(complete).observe(panel, seen);
  new ResizeObserver(complete).observe(panel);
  complete();
}
