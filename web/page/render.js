// The demo's own templates, compiled by ../templates.mjs.
import nunjucks from "../vendor/nunjucks.js";
import { templates } from "../vendor/templates.js";

nunjucks.installJinjaCompat();
const loader = new nunjucks.PrecompiledLoader(templates);
const environment = new nunjucks.Environment(loader, { autoescape: true, throwOnUndefined: true });
environment.addFilter("fixed", (value, digits) => value.toFixed(digits));
environment.addFilter("thousands", (value) => value.toLocaleString("en"));
environment.addFilter("tojson", (value) => JSON.stringify(value));

export const render = (name, values) => environment.render(`${name}.html`, values);
