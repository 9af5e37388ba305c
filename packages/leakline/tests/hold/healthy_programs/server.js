// An HTTP server of Node: each request reads a file, and every tenth one starts a child process.
const http = require("http"), fs = require("fs"), { execFile } = require("child_process");
let count = 0;
http.createServer((request, response) => {
  const answer = () => fs.readFile("/etc/passwd", (error, text) => response.end(text));
  if (++count % 10) answer();
  else execFile("/bin/true", answer);
}).listen(Number(process.argv[2]), "127.0.0.1");
