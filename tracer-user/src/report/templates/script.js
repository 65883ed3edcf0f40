"use strict";
// Details of what is under the pointer or has the focus; arrow keys go along a lane.
(() => {
  const box = document.getElementById("detail");
  let at = null;
  const show = (item) => {
    if (item === at) return;
    if (at) at.classList.remove("at");
    at = item;
    box.hidden = !item;
    if (!item) return;
    item.classList.add("at");
    box.textContent = item.querySelector("title").textContent;
  };
  const item = (event) => event.target.closest?.(".i") ?? null;
  document.addEventListener("pointerover", (event) => show(item(event)));
  document.addEventListener("focusin", (event) => show(item(event)));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return show(null);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const lane = event.target.closest?.(".lane > svg");
    if (!step || !lane) return;
    const place = (one) => one.getBoundingClientRect().left;
    const items = [...lane.querySelectorAll(".i")].sort((one, other) => place(one) - place(other));
    const next = items[items.indexOf(item(event)) + step] ?? items[step > 0 ? 0 : items.length - 1];
    if (!next) return;
    event.preventDefault();
    next.setAttribute("tabindex", "-1");
    next.focus();
  });
  // A link to a pod opens it.
  const open = () => {
    const pod = location.hash && document.getElementById(location.hash.slice(1));
    if (pod) pod.open = true;
  };
  addEventListener("hashchange", open);
  open();
})();
