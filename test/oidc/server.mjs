// An OpenID provider that weir did not write, as a token endpoint: oidc-provider,
// configured like Microsoft Entra ID and like Databricks.  It verifies what it is
// sent by its own means and refuses assertions for somebody else or used before.
//
//     node server.mjs CONFIGURATION ADDRESS-FILE
//
// CONFIGURATION is JSON: {"clients": [...], "routes": {"token": "/path"}, "lifetime": seconds}.
// What it decides is written to standard output, one JSON object a line; the latest
// form it was sent to ADDRESS-FILE.form, so that a test can send it once more.

import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const wanted = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const server = createServer();

server.listen(0, '127.0.0.1', () => {
  const address = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(address, {
    clients: wanted.clients,
    routes: wanted.routes,
    scopes: wanted.scopes,
    clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['PS256', 'RS256'] },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
    },
    ttl: { ClientCredentials: wanted.lifetime ?? 3600 },
  });
  const say = (what) => process.stdout.write(JSON.stringify(what) + '\n');
  provider.on('grant.success', (ctx) => say({ granted: ctx.oidc.client.clientId }));
  provider.on('grant.error', (ctx, error) =>
    say({ refused: error.error, detail: error.error_detail ?? error.error_description ?? error.message }));
  provider.on('server_error', (ctx, error) => say({ broken: String(error.stack) }));
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.oidc?.body) writeFileSync(process.argv[3] + '.form', new URLSearchParams(ctx.oidc.body).toString(), { mode: 0o600 });
  });
  server.on('request', provider.callback());
  writeFileSync(process.argv[3] + '.tmp', address);
  renameSync(process.argv[3] + '.tmp', process.argv[3]);
});

process.on('SIGTERM', () => process.exit(0));
