// @ts-check
// Before the first paint, so that a chosen theme does not flash. Not a module: those run later.
(() => {
  try {
    const chosen = localStorage.getItem("parley.theme");
    if (chosen) document.documentElement.dataset.theme = chosen;
  } catch {
    // storage is blocked: the system's theme it is
  }
})();
