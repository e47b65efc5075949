// The parts of the page that need no server. Gradio draws the page after this runs, so each part listens on
// the document.
import { enlargeFigures } from "./enlarge.js";
import { listenForFiles } from "./files.js";
import { copySnippet } from "./snippets.js";
import { sortTable } from "./table.js";
import { showTabOfAddress } from "./tabs.js";
import { redrawViewer } from "./viewer.js";
import { welcome } from "./welcome.js";

redrawViewer();
enlargeFigures();
sortTable();
copySnippet();
listenForFiles();
welcome(showTabOfAddress);
