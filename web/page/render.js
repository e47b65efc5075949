// The demo's own templates, compiled by scripts/build_web.py.
import nunjucks from "../vendor/nunjucks.js";
import "../templates.js";

nunjucks.installJinjaCompat();
const environment = new nunjucks.Environment(null, { autoescape: true, throwOnUndefined: true });
environment.addFilter("fixed", (value, digits) => value.toFixed(digits));
environment.addFilter("thousands", (value) => value.toLocaleString("en"));
environment.addFilter("tojson", (value) => JSON.stringify(value));

export const render = (name, values) => environment.render(`${name}.html`, values);
