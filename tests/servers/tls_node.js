// Serves over TLS as the query of each request says, and keeps the marks of marks.py.
//
// Arguments: port, key, certificate, and `cert` to ask for one of the client.

const fs = require("fs");
const https = require("https");

const [port, key, certificate, client] = process.argv.slice(2);
const marks = fs.openSync(process.env.MARKS, "a");
const now = () => Number(process.hrtime.bigint());
const options = {
  key: fs.readFileSync(key),
  cert: fs.readFileSync(certificate),
  ca: client === "cert" ? [fs.readFileSync(certificate)] : undefined,
  requestCert: client === "cert",
  rejectUnauthorized: client === "cert",
};

const server = https.createServer(options, (request, response) => {
  const row = { case: request.headers["x-case"] || "", pid: process.pid, entered_ns: now(), read_ns: null };
  const query = new URL(request.url, "https://localhost").searchParams;
  const body = "r".repeat(Number(query.get("body") || 2));
  let bytes = 0;
  request.on("data", (piece) => (bytes += piece.length));
  request.on("end", () => {
    row.read_ns = now();
    setTimeout(() => {
      row.begun_ns = now();
      response.writeHead(200, { "content-length": body.length });
      response.end(body, () => {
        Object.assign(row, { ended_ns: now(), status: 200, body_bytes: bytes });
        fs.writeSync(marks, JSON.stringify(row) + "\n");
      });
    }, Number(query.get("sleep_ms") || 0));
  });
});
server.keepAliveTimeout = 60000;
server.listen(Number(port), "127.0.0.1");
