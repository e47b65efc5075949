// The demo's page, whose main.js is demo.js here, with a reading tab that needs no server.
import "./demo.js";
import { listenForUploads } from "./read.js";

listenForUploads();
