// The parts of the page that need no server. Gradio draws its part after this runs, so what acts there listens on
// the document.
import { listenForArrivals } from "./arrivals.js";
import { enlargeFigures } from "./enlarge.js";
import { listenForFiles } from "./files.js";
import { listenForHistory } from "./history.js";
import { showTabOfAddress } from "./navigation.js";
import { fillParts } from "./parts.js";
import { copySnippet } from "./snippets.js";
import { listenForTables } from "./table.js";
import { listenForViewers } from "./viewer.js";
import { welcome } from "./welcome.js";

showTabOfAddress();
welcome();
fillParts();
listenForViewers();
listenForArrivals();
listenForHistory();
enlargeFigures();
listenForTables();
copySnippet();
listenForFiles();
