// Window width and centre, in displayed grey levels 0 to 255: what is below the window is black, above it
// white, between them linear (DICOM PS3.3 C.11.2.1.3.2, LINEAR_EXACT).

const FULL = { width: 255, centre: 127.5 };

const field = (viewer, name) => viewer.querySelector(`.${name}`);

export const levels = (viewer) => ({
  width: Number(field(viewer, "width").value),
  centre: Number(field(viewer, "centre").value),
});

// grey, 0 to 1, becomes slope * grey + intercept, cut to 0 to 1.
export function mapping(viewer) {
  const { width, centre } = levels(viewer);
  const slope = 255 / width;
  const intercept = 0.5 - centre / width;
  return field(viewer, "invert").checked ? { slope: -slope, intercept: 1 - intercept } : { slope, intercept };
}

export function showWindow(viewer) {
  const { slope, intercept } = mapping(viewer);
  for (const each of viewer.querySelectorAll("feFuncR, feFuncG, feFuncB")) {
    each.setAttribute("slope", slope);
    each.setAttribute("intercept", intercept);
  }
  for (const name of ["width", "centre"]) {
    viewer.querySelector(`.${name}-value`).textContent = field(viewer, name).value;
  }
}

// The fields keep within their limits.
export function setLevels(viewer, width, centre) {
  field(viewer, "width").value = width;
  field(viewer, "centre").value = centre;
  showWindow(viewer);
}

export function resetWindow(viewer) {
  field(viewer, "invert").checked = false;
  setLevels(viewer, FULL.width, FULL.centre);
}
