// Writes vendor/templates.js: the demo's templates that this page fills in too, compiled to functions.
import { writeFileSync } from "node:fs";
import nunjucks from "nunjucks";

const NAMES = ["answers.html", "viewer.html", "table.html", "report.html"];
const FOLDER = new URL("../xray_hf/demo/templates/", import.meta.url).pathname;

nunjucks.installJinjaCompat();
const env = new nunjucks.Environment(null, { trimBlocks: true, lstripBlocks: true });
const wrapper = ([{ name, template }]) => `  ${JSON.stringify(name)}: (() => {\n${template}\n  })(),\n`;
const compiled = NAMES.map((name) => nunjucks.precompile(FOLDER + name, { name, env, wrapper }));
writeFileSync(new URL("vendor/templates.js", import.meta.url), `export const templates = {\n${compiled.join("")}};\n`);
