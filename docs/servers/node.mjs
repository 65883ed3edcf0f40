// A Node.js server with four ways to take a SIGTERM, named by its argument:
// none (no handler), exit (process.exit at once), close (server.close), drain (says
// "connection: close" for a while, then server.close).
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";

const way = process.argv[2] ?? "close";
const { LASTPACKET_TLS_CERT: cert, LASTPACKET_TLS_KEY: key } = process.env;
let draining = false;

function answer(request, response) {
  const url = new URL(request.url, "http://localhost");
  const ms = url.pathname === "/slow" ? Number(url.searchParams.get("ms") ?? 1000) : 0;
  setTimeout(() => {
    if (draining) response.setHeader("connection", "close");
    response.end("hello\n");
  }, ms);
}

const server = cert
  ? https.createServer({ cert: readFileSync(cert), key: readFileSync(key) }, answer)
  : http.createServer(answer);
server.listen(8080);

const close = () => server.close(() => process.exit(0));
if (way === "exit") process.on("SIGTERM", () => process.exit(0));
if (way === "close") process.on("SIGTERM", close);
if (way === "drain") {
  process.on("SIGTERM", () => {
    draining = true;
    setTimeout(close, 2000);
  });
}
