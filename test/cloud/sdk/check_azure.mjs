// A session of Microsoft's SDKs for JavaScript with the local cloud: they must understand every answer.
//
//     node check_azure.mjs .../test/cloud/cloud.py
//
// Needs @azure/identity, @azure/arm-datafactory, @azure/keyvault-secrets, @azure/storage-blob, @azure/storage-queue and
// @azure/storage-file-datalake.  They talk TLS, as they insist on; nothing of them is replaced.

import { createHash, createSign, X509Certificate } from "node:crypto";
import fs from "node:fs";
import path from "node:path";

import { DataFactoryManagementClient } from "@azure/arm-datafactory";
import { ClientAssertionCredential, ClientCertificateCredential, ClientSecretCredential, ManagedIdentityCredential,
    WorkloadIdentityCredential } from "@azure/identity";
import { SecretClient } from "@azure/keyvault-secrets";
import { BlobServiceClient } from "@azure/storage-blob";
import { DataLakeServiceClient } from "@azure/storage-file-datalake";
import { QueueServiceClient } from "@azure/storage-queue";

import { all, check, makeCertificate, refused, run, until } from "./localcloud.mjs";
import { queues } from "./queues.mjs";

const TENANT = "11111111-2222-3333-4444-555555555555";          // the one whose vault it is
const STORAGE = "https://storage.azure.com/.default";
const PLACE = ["rg", "df"];

const entra = cloud => ({ authorityHost: cloud.secure, disableInstanceDiscovery: true });
const credential = (cloud, secret = "weir-secret") => new ClientSecretCredential(TENANT, "weir-client", secret, entra(cloud));

async function identity(cloud) {
    const token = await credential(cloud).getToken(STORAGE);
    check("identity: a secret", token.token.length > 500 && token.expiresOnTimestamp > Date.now(), token.expiresOnTimestamp);
    const wrong = await refused(() => credential(cloud, "wrong").getToken(STORAGE));
    check("identity: a wrong secret", wrong?.errorResponse?.errorDescription.includes("AADSTS7000215") || wrong?.message.includes("7000215"), wrong);

    const base = makeCertificate(cloud.directory, "client");
    const certificate = new X509Certificate(fs.readFileSync(base + ".crt"));
    const jwk = certificate.publicKey.export({ format: "jwk" });
    const thumbprint = algorithm => createHash(algorithm).update(certificate.raw).digest("base64url");
    const key = { "x5t#S256": thumbprint("sha256"), x5t: thumbprint("sha1"), n: Buffer.from(jwk.n, "base64url").toString("hex"), e: 65537 };
    await cloud.config({ certificates: { "weir-client": [key] } });
    fs.writeFileSync(base + ".pem", fs.readFileSync(base + ".key", "utf8") + fs.readFileSync(base + ".crt", "utf8"));
    const signed = new ClientCertificateCredential(TENANT, "weir-client", base + ".pem", entra(cloud));
    check("identity: a certificate", (await signed.getToken(STORAGE)).token);

    await cloud.config({ federated: { workload: { issuer: "https://issuer.example", subject: "pod", audience: "api://AzureADTokenExchange", ...key } } });
    const now = Math.floor(Date.now() / 1000);
    const parts = [{ alg: "RS256", typ: "JWT" },
        { iss: "https://issuer.example", sub: "pod", aud: "api://AzureADTokenExchange", iat: now, exp: now + 600 }]
        .map(part => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
    const jwt = parts + "." + createSign("sha256").update(parts).sign(fs.readFileSync(base + ".key")).toString("base64url");
    const asserted = new ClientAssertionCredential(TENANT, "workload", async () => jwt, entra(cloud));
    check("identity: an assertion", (await asserted.getToken(STORAGE)).token);
    const file = path.join(cloud.directory, "token");
    fs.writeFileSync(file, jwt);
    const workload = new WorkloadIdentityCredential({ tenantId: TENANT, clientId: "workload", tokenFilePath: file, ...entra(cloud) });
    check("identity: federation", (await workload.getToken(STORAGE)).token);
}

async function managedIdentity(cloud) {
    await cloud.config({ identities: ["assigned"] });
    process.env.AZURE_POD_IDENTITY_AUTHORITY_HOST = cloud.address;
    const token = await new ManagedIdentityCredential().getToken(STORAGE);
    check("managed identity: of a machine", token.token.length > 500 && token.expiresOnTimestamp > Date.now());
    check("managed identity: one assigned", (await new ManagedIdentityCredential("assigned").getToken(STORAGE)).token);
    process.env.IDENTITY_ENDPOINT = cloud.address + "/msi/token";
    process.env.IDENTITY_HEADER = "local-identity-header";
    check("managed identity: of a function", (await new ManagedIdentityCredential().getToken(STORAGE)).token);
    for (const name of ["AZURE_POD_IDENTITY_AUTHORITY_HOST", "IDENTITY_ENDPOINT", "IDENTITY_HEADER"])
        delete process.env[name];
}

async function dataFactory(cloud) {
    const client = new DataFactoryManagementClient(credential(cloud), "s1", { endpoint: cloud.secure + "/adf",
        credentialScopes: "https://management.azure.com/.default" });
    check("adf: factory", (await client.factories.get(...PLACE)).name === "df");
    const names = (await all(client.pipelines.listByFactory(...PLACE))).map(one => one.name);
    check("adf: pipelines", ["copy_flights", "fail", "wait"].every(name => names.includes(name)), names);
    const missing = await refused(() => client.pipelines.createRun(...PLACE, "none"));
    check("adf: unknown pipeline", missing?.statusCode === 404 && missing.code === "PipelineNotFound", missing);
    const follow = async runId => await until(async () => {
        const answer = await refused(async () => { follow.run = await client.pipelineRuns.get(...PLACE, runId); });
        return answer ? undefined : follow.run;
    }, one => ["Succeeded", "Failed", "Cancelled"].includes(one?.status));
    const { runId } = await client.pipelines.createRun(...PLACE, "copy_flights", { parameters: { row_audit_id: 32, weir_token: "t" } });
    const one = await follow(runId);
    check("adf: a run", one.status === "Succeeded" && one.parameters.row_audit_id === "32" && one.durationInMs > 0
        && one.runEnd > one.runStart && one.invokedBy.name === "Manual" && one.isLatest && one.runGroupId === runId, one);
    const window = { lastUpdatedAfter: new Date(Date.now() - 3.6e6), lastUpdatedBefore: new Date(Date.now() + 3.6e6) };
    const activities = (await client.activityRuns.queryByPipelineRun(...PLACE, runId, window)).value;
    check("adf: activities", activities.map(one => one.activityType).join() === "Lookup,Copy" && activities[1].output.rowsCopied === 4334
        && activities[1].activityRunEnd > activities[1].activityRunStart, activities);
    const failed = await client.pipelines.createRun(...PLACE, "fail");
    check("adf: failed", (await follow(failed.runId)).status === "Failed");
    const again = await client.pipelines.createRun(...PLACE, "fail", { referencePipelineRunId: failed.runId, isRecovery: true, startFromFailure: true });
    check("adf: recovery", (await follow(again.runId)).runGroupId === failed.runId);
    const waiting = await client.pipelines.createRun(...PLACE, "wait", { parameters: { seconds: 100000 } });
    await until(() => refused(() => client.pipelineRuns.cancel(...PLACE, waiting.runId, { isRecursive: true })), error => !error);
    check("adf: cancelled", (await follow(waiting.runId)).status === "Cancelled");
    const found = await client.pipelineRuns.queryByFactory(...PLACE, { ...window,
        filters: [{ operand: "Status", operator: "Equals", values: ["Cancelled"] }], orderBy: [{ orderBy: "RunStart", order: "DESC" }] });
    check("adf: query", found.value.map(one => one.runId).join() === waiting.runId, found);
    await cloud.fault({ operation: "adf.getRun", status: 429, retry_after: 0, times: 2 });
    check("adf: the SDK's retries get through", (await client.pipelineRuns.get(...PLACE, waiting.runId)).status === "Cancelled");
}

async function keyVault(cloud) {
    const vault = new SecretClient(cloud.secure, credential(cloud), { disableChallengeResourceVerification: true });
    const first = await vault.setSecret("password", "one", { contentType: "text/plain", tags: { a: "b" } });
    const second = await vault.setSecret("password", "two");
    check("vault: set", first.name === "password" && first.properties.version !== second.properties.version
        && first.properties.tags.a === "b" && first.properties.createdOn instanceof Date, first);
    check("vault: the newest", (await vault.getSecret("password")).value === "two");
    check("vault: a version", (await vault.getSecret("password", { version: first.properties.version })).value === "one");
    for (let i = 0; i < 4; i++)
        await vault.setSecret(`other-${i}`, "x");
    const pages = await all(vault.listPropertiesOfSecrets().byPage({ maxPageSize: 2 }));
    check("vault: pages", pages.length === 3 && pages.flat().map(one => one.name).join() === "other-0,other-1,other-2,other-3,password", pages.map(page => page.map(one => one.name)));
    check("vault: versions", (await all(vault.listPropertiesOfSecretVersions("password"))).length === 2);
    const missing = await refused(() => vault.getSecret("none"));
    check("vault: unknown", missing?.statusCode === 404 && missing.code === "SecretNotFound", missing);
    await vault.setSecret("off", "x", { enabled: false });
    check("vault: disabled", (await refused(() => vault.getSecret("off")))?.statusCode === 403);
}

async function queue(cloud) {
    await cloud.config({ queue_auth: "bearer" });
    await queues(new QueueServiceClient(cloud.secure + "/queue", credential(cloud)));
    await cloud.config({ queue_auth: "none" });
}

async function blobs(cloud) {
    const service = new BlobServiceClient(cloud.secure + "/hns-blob", credential(cloud));
    const container = service.getContainerClient("lake");
    const data = Buffer.from("a,b\n1,2\n");
    const blob = container.getBlockBlobClient("in/ümläut & +%.csv");
    const put = await blob.upload(data, data.length, { metadata: { source: "x" }, conditions: { ifNoneMatch: "*" } });
    check("blob: uploaded", put.etag && put.lastModified && put.contentMD5, put);
    const taken = await refused(() => blob.upload(data, data.length, { conditions: { ifNoneMatch: "*" } }));
    check("blob: not again", taken?.statusCode === 409 && taken.code === "BlobAlreadyExists", taken);
    const properties = await blob.getProperties();
    check("blob: properties", properties.contentLength === data.length && properties.etag === put.etag && properties.blobType === "BlockBlob"
        && properties.metadata.source === "x", properties);
    check("blob: text", (await blob.downloadToBuffer()).equals(data));
    check("blob: a range", (await blob.downloadToBuffer(2, 3)).equals(data.subarray(2, 5)));
    for (let i = 0; i < 5; i++)
        await container.getBlockBlobClient(`in/${i}.csv`).upload("x".repeat(i), i);
    const pages = await all(container.listBlobsFlat({ prefix: "in/" }).byPage({ maxPageSize: 2 }));
    const names = pages.flatMap(page => page.segment.blobItems.map(one => one.name));
    check("blob: listed", pages.length === 3 && names.join() === "in/0.csv,in/1.csv,in/2.csv,in/3.csv,in/4.csv,in/ümläut & +%.csv", names);
    const folders = await all(container.listBlobsByHierarchy("/"));
    check("blob: folders", folders.length === 1 && folders[0].kind === "prefix" && folders[0].name === "in/", folders);
    check("blob: containers", (await all(service.listContainers())).map(one => one.name).join() === "lake");
    const other = container.getBlockBlobClient("in/3.csv");
    const changed = await refused(() => other.delete({ conditions: { ifMatch: put.etag } }));
    check("blob: changed meanwhile", changed?.statusCode === 412 && changed.code === "ConditionNotMet", changed);
    await other.delete();
    const gone = await refused(() => other.download());
    check("blob: gone", gone?.statusCode === 404 && gone.code === "BlobNotFound", gone);
    check("blob: is not there", !await other.exists());
}

// Without renames: the SDK builds the new address without the account when that is part of the path, as it is here
async function dataLake(cloud) {
    const system = new DataLakeServiceClient(cloud.secure + "/hns-dfs", credential(cloud)).getFileSystemClient("lake");
    const folder = system.getDirectoryClient("archive/2026");
    await folder.create();
    const again = await folder.createIfNotExists();
    check("lake: a folder is made once", again.succeeded === false, again);
    await system.getDirectoryClient("in/deep").create();
    const paths = await all(system.listPaths({ path: "in", recursive: true }));
    check("lake: listed", paths.map(one => one.name).join().startsWith("in/0.csv,in/1.csv,in/2.csv") && paths.at(-2).isDirectory
        && paths[2].contentLength === 2 && paths[2].etag, paths);
    const file = system.getFileClient("in/1.csv");
    check("lake: a file", (await file.getProperties()).contentLength === 1);
    await file.delete();
    check("lake: deleted", !await file.exists());
    const full = await refused(() => system.getDirectoryClient("in").delete(false));
    check("lake: not empty", full?.statusCode === 409 && full.code === "DirectoryNotEmpty", full);
    await system.getDirectoryClient("in").delete(true);
    check("lake: with all that is in it", !await system.getFileClient("in/2.csv").exists());
}

await run(identity, managedIdentity, dataFactory, keyVault, queue, blobs, dataLake);
