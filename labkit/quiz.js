// What a quiz cannot tell its widgets from Python, done once for each view of it. It stands in the
// onload of the quiz's style element, which is `this`. Without it a quiz works, but every answer is
// a stop of the Tab key, and a screen reader does not say what is asked.
const quiz = this.closest(".labkit-quiz");
if (quiz && !quiz.dataset.labkit) {
  const id = (quiz.dataset.labkit = `labkit-${Math.random().toString(36).slice(2)}`);
  const set = (element, name, value) => {
    if (element && element.getAttribute(name) !== value) element.setAttribute(name, value);
  };

  // In JupyterLab plain keys are commands also while a control of an output has the focus: ArrowDown
  // on an answer goes to the next cell. Escape is the way back to them.
  quiz.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && event.key === "Enter") return;
    if (event.key === "Escape") quiz.closest(".jp-Cell")?.focus();
    else event.stopPropagation();
  });

  const complete = () => {
    set(quiz, "role", "group");
    set(quiz, "aria-label", quiz.querySelector("h4")?.textContent ?? "quiz");
    quiz.querySelectorAll(".labkit-question").forEach((question, number) => {
      const group = question.querySelector(".widget-radio-box");
      set(group, "role", "radiogroup");
      set(group, "aria-label", question.querySelector("h5")?.textContent ?? "");
      // One name makes one group of them: one stop of Tab, and arrows within.
      for (const radio of question.querySelectorAll("input[type=radio]")) {
        set(radio, "name", `${id}-${number}`);
      }
    });
    // The widget stays while its text changes: that is what can be announced.
    for (const live of quiz.querySelectorAll(".labkit-live")) set(live, "role", "status");
  };
  new MutationObserver(complete).observe(quiz, { subtree: true, childList: true });
  complete();
}
