// A TLS server that speaks HTTP/2 (and 1.1 to who does not) and counts
// connections.  far_end_h2.mjs DIR: reads server.crt and server.key there,
// writes h2.json: the port.  GET /counts says how many there were.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createSecureServer } from 'node:http2';

const dir = process.argv[2];
const counts = { connections: 0, sessions: 0, requests: 0, versions: {}, most: 0 };
let open = 0;
const waiting = [];

const server = createSecureServer({
	key: readFileSync(`${dir}/server.key`),
	cert: readFileSync(`${dir}/server.crt`),
	allowHTTP1: true,
});
server.on('secureConnection', () => { counts.connections++; });
server.on('session', () => { counts.sessions++; });
server.on('error', () => { });

function answer(response, body) {
	const text = JSON.stringify(body);
	response.writeHead(200, { 'content-type': 'application/json', 'content-length': text.length });
	response.end(text);
}

// "/together/N/..." is answered when N of them are here at the same time.
server.on('request', (request, response) => {
	request.on('data', () => { });
	request.on('error', () => { });
	response.on('error', () => { });
	if (request.url === '/counts') {
		answer(response, counts);
		return;
	}
	counts.requests++;
	counts.versions[request.httpVersion] = (counts.versions[request.httpVersion] ?? 0) + 1;
	open++;
	counts.most = Math.max(counts.most, open);
	const done = () => { open--; answer(response, { ok: true }); };
	const together = /^\/together\/(\d+)\//.exec(request.url);
	if (!together) {
		done();
		return;
	}
	waiting.push(done);
	if (waiting.length >= Number(together[1])) {
		waiting.splice(0).forEach((each) => each());
	}
});
server.listen(0, '127.0.0.1', () => {
	writeFileSync(`${dir}/h2.new`, String(server.address().port));
	renameSync(`${dir}/h2.new`, `${dir}/h2.json`);
});
