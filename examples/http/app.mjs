// Calls an API with a token from brokerd over HTTP: Node. Usage: node app.mjs GRANT URL
import http from "node:http";

const socketPath = process.env.BROKERD_HTTP_SOCKET ?? "/run/brokerd/http.sock";

function broker(method, path, body = "") {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Length": Buffer.byteLength(body) };
    const request = http.request({ socketPath, method, path, headers }, async (answer) => {
      let text = "";
      for await (const piece of answer) text += piece;
      const found = JSON.parse(text);
      answer.statusCode === 200 ? resolve(found) : reject(new Error(`no token: ${found.message}`));
    });
    request.on("error", reject);
    request.end(body);
  });
}

function call(url, token) {
  const [name, value] = token.header.split(": ");
  return fetch(url, { headers: { [name]: value } });
}

const [grant, url] = process.argv.slice(2);
try {
  let token = await broker("GET", `/v1/token/${grant}`);
  let answer = await call(url, token);
  if (answer.status === 401) { // the API refused the token before its time: report it, once
    token = await broker("POST", `/v1/refused/${grant}`, token.access_token);
    answer = await call(url, token);
  }
  if (answer.status !== 200) throw new Error(`${url} answered ${answer.status}`);
  process.stdout.write(await answer.text());
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
