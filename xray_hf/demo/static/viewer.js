// The viewer of an answer: everything is done with the pictures that the answer brought.

function redraw(viewer) {
  const value = (name) => viewer.querySelector(`.${name}`)?.value;
  const chosen = Number(value("choose-map") ?? -1);
  viewer.querySelectorAll(".map").forEach((map, place) => {
    map.hidden = place !== chosen;
    map.style.opacity = value("opacity") / 100;
    map.style.clipPath = `inset(0 0 0 ${value("compare")}%)`;
  });
  const inverted = viewer.querySelector(".invert").checked ? "invert(1)" : "";
  const levels = `contrast(${value("contrast")}%) brightness(${value("brightness")}%)`;
  viewer.querySelector(".xray").style.filter = `${inverted} ${levels}`;
}

export function redrawViewer() {
  document.addEventListener("input", (event) => {
    const viewer = event.target.closest(".viewer");
    if (viewer) redraw(viewer);
  });
}
