// The static page: what the demo's page does without its server, and a reading tab that needs none.
import { listenForArrivals } from "./arrivals.js";
import { enlargeFigures } from "./enlarge.js";
import { listenForFiles } from "./files.js";
import { listenForHistory } from "./history.js";
import { showTabOfAddress } from "./navigation.js";
import { keepForOffline } from "./offline.js";
import { fillParts } from "./parts.js";
import { listenForUploads } from "./read.js";
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
listenForFiles();
listenForUploads();
keepForOffline();
