// The parts of the page that need no server. Gradio draws its part after this runs, so what acts there listens on
// the document.
import { listenForFiles } from "./files.js";
import { showTabOfAddress } from "./navigation.js";
import { fillParts } from "./parts.js";
import { copySnippet } from "./snippets.js";
import { sortTable } from "./table.js";
import { redrawViewer } from "./viewer.js";
import { welcome } from "./welcome.js";

showTabOfAddress();
welcome();
fillParts();
redrawViewer();
sortTable();
copySnippet();
listenForFiles();
