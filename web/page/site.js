// What scripts/build_web.py knows of the models: their names, files, thresholds and all that the page says.
export const site = await (await fetch("site.json")).json();
