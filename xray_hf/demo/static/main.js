// The parts of the page that need no server. Gradio draws the page after this runs, so each part listens on
// the document.
import { listenForArrivals } from "./arrivals.js";
import { enlargeFigures } from "./enlarge.js";
import { listenForFiles } from "./files.js";
import { listenForHistory } from "./history.js";
import { copySnippet } from "./snippets.js";
import { sortTable } from "./table.js";
import { showTabOfAddress } from "./tabs.js";
import { listenForViewers } from "./viewer.js";
import { welcome } from "./welcome.js";

listenForViewers();
listenForArrivals();
listenForHistory();
enlargeFigures();
sortTable();
copySnippet();
listenForFiles();
welcome(showTabOfAddress);
