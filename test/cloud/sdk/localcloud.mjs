// What the sessions of the vendors' SDKs for JavaScript share: a local cloud of their own, also over TLS, and counting.
// Node reads certificates to trust when it starts, so this process starts itself once more when it has one.

import { execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const counts = { passed: 0, failed: 0 };

export function check(name, condition, detail) {
    counts[condition ? "passed" : "failed"]++;
    if (!condition)
        console.log(`not ok: ${name}` + (detail === undefined ? "" : `: ${text(detail)}`).slice(0, 900));
}

function text(value) {
    return value instanceof Error ? `${value.name} ${value.code ?? ""} ${value.message}` : JSON.stringify(value);
}

// The error that action ends with, or undefined.
export async function refused(action) {
    try {
        await action();
    } catch (error) {
        return error;
    }
}

// What read() returns once it satisfies; the limit only ends a hang.
export async function until(read, satisfied, seconds = 60) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
        const value = await read();
        if (satisfied(value) || Date.now() > deadline)
            return value;
        await new Promise(resume => setTimeout(resume, 5));
    }
}

export async function all(iterable) {
    const found = [];
    for await (const one of iterable)
        found.push(one);
    return found;
}

export function makeCertificate(directory, name, ...more) {
    const base = path.join(directory, name);
    execFileSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", base + ".key", "-out", base + ".crt",
        "-days", "2", "-subj", "/CN=" + name, ...more], { stdio: "ignore" });
    return base;
}

// session(cloud) for each of the sessions, against one cloud: {address, secure, directory, config(), fault()}
export async function run(...sessions) {
    if (process.env.WEIR_CLOUD_SESSION === undefined)
        return restart();
    const cloud = JSON.parse(process.env.WEIR_CLOUD_SESSION);
    const post = what => body => fetch(`${cloud.address}/_cloud/${what}`, { method: "POST", body: JSON.stringify(body) });
    cloud.config = post("config");
    cloud.fault = post("faults");
    for (const session of sessions) {
        try {
            await session(cloud);
        } catch (error) {       // the others are still worth hearing
            console.log(error.stack);
            check(`${session.name} goes on to its end`, false, error);
        }
    }
    report();
}

// The last line, and the end.
export function report() {
    console.log(`${counts.passed} passed, ${counts.failed} failed`);
    process.exit(counts.failed || !counts.passed ? 1 : 0);
}

async function restart() {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "weir-sdk-"));
    const base = makeCertificate(directory, "cloud", "-addext", "subjectAltName=IP:127.0.0.1");
    const [address, secure] = ["address", "tls"].map(name => path.join(directory, name));
    const server = spawn("python3", [process.argv[2], "--dir", directory, "--speed", "10", "--address-file", address, "--certificate",
        base + ".crt", "--key", base + ".key", "--tls-address-file", secure,
        ...process.env.WEIR_RECORD_FILE ? ["--record", process.env.WEIR_RECORD_FILE] : []], { stdio: ["ignore", "ignore", "inherit"] });
    try {
        await until(() => fs.existsSync(address) || server.exitCode !== null, Boolean);
        const session = { address: fs.readFileSync(address, "utf8"), secure: fs.readFileSync(secure, "utf8"), directory };
        const child = spawn(process.execPath, process.argv.slice(1), { stdio: "inherit",
            env: { ...process.env, NODE_EXTRA_CA_CERTS: base + ".crt", WEIR_CLOUD_SESSION: JSON.stringify(session) } });
        process.exitCode = await new Promise(resume => child.on("exit", code => resume(code ?? 1)));
    } finally {
        server.kill();
        fs.rmSync(directory, { recursive: true, force: true });
    }
}
