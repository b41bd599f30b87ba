// A session of Databricks' SDK for JavaScript with the local cloud: it must understand every answer.
//
//     node check_databricks.mjs .../test/cloud/cloud.py
//
// Needs @databricks/sdk-experimental.  It forgets the port of the host it is given, so its agent adds it again; and its numbers
// are doubles, so ids of runs begin at a small one; and a request without a body loses its query string, unless it has an empty one.

import https from "node:https";
import tls from "node:tls";
import sdk from "@databricks/sdk-experimental";

import { all, check, refused, run, until } from "./localcloud.mjs";

function client(cloud, token = "dapi-local") {
    const port = Number(new URL(cloud.secure).port);
    const agent = new https.Agent();
    agent.createConnection = options => tls.connect({ ...options, port });
    const workspace = new sdk.WorkspaceClient({ host: cloud.secure, token, authType: "pat" }, { agent });
    const request = workspace.apiClient.request.bind(workspace.apiClient);
    workspace.apiClient.request = (options, context) => request({ ...options, payload: options.payload ?? {} }, context);
    return workspace;
}

const ended = run => run.state.life_cycle_state === "TERMINATED" || run.state.life_cycle_state === "INTERNAL_ERROR";

async function jobs(cloud) {
    await cloud.config({ first_run_id: 1000 });
    const w = client(cloud);
    const names = (await all(w.jobs.list({}))).map(job => job.settings.name);
    check("jobs: list", names.includes("transform_flights") && names.includes("wait"), names);
    check("jobs: one", (await w.jobs.get({ job_id: 101 })).settings.tasks.length === 2);
    const unknown = await refused(() => w.jobs.getRun({ run_id: 17 }));
    check("jobs: unknown run", unknown?.errorCode === "INVALID_PARAMETER_VALUE" && unknown.statusCode === 400, unknown);
    check("jobs: wrong token", (await refused(() => client(cloud, "dapi-wrong").jobs.get({ job_id: 101 })))?.statusCode === 403);
    const form = { grant_type: "client_credentials", client_id: "weir-client", client_secret: "weir-secret",
        scope: "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d/.default" };
    const answer = await fetch(cloud.address + "/t/oauth2/v2.0/token", { method: "POST", body: new URLSearchParams(form) });
    const entra = client(cloud, (await answer.json()).access_token);
    check("jobs: a token of Entra ID", (await entra.jobs.get({ job_id: 102 })).job_id === 102);

    const started = await w.jobs.runNow({ job_id: 102, idempotency_token: "js", job_parameters: { seconds: "0" }, queue: { enabled: true } });
    const again = await w.jobs.runNow({ job_id: 102, idempotency_token: "js" });
    check("jobs: same token", started.run_id >= 1000 && again.run_id === started.run_id, started);
    let one = await until(() => w.jobs.getRun({ run_id: started.run_id, include_history: true }), ended);
    check("jobs: succeeded", one.state.result_state === "SUCCESS" && one.status.state === "TERMINATED"
        && one.status.termination_details.code === "SUCCESS" && one.end_time >= one.start_time
        && one.job_parameters[0].value === "0", one);
    const failing = await w.jobs.runNow({ job_id: 103 });
    one = await until(() => w.jobs.getRun({ run_id: failing.run_id }), ended);
    check("jobs: failed", one.state.result_state === "FAILED", one.state);
    const output = await w.jobs.getRunOutput({ run_id: one.tasks[0].run_id });
    check("jobs: its error", output.error && output.error_trace, output);
    const repair = await w.jobs.repairRun({ run_id: failing.run_id, rerun_all_failed_tasks: true });
    await until(() => w.jobs.getRun({ run_id: failing.run_id }), ended);
    one = await w.jobs.getRun({ run_id: failing.run_id, include_history: true });
    check("jobs: repaired", one.repair_history.length === 2 && one.repair_history[1].type === "REPAIR"
        && one.repair_history[1].id === repair.repair_id, one.repair_history);
    const waiting = await w.jobs.runNow({ job_id: 102, job_parameters: { seconds: "100000" } });
    await w.jobs.cancelRun({ run_id: waiting.run_id });
    one = await until(() => w.jobs.getRun({ run_id: waiting.run_id }), ended);
    check("jobs: cancelled", one.state.result_state === "CANCELED", one.state);
    for (let i = 0; i < 10; i++)
        await w.jobs.runNow({ job_id: 102, job_parameters: { seconds: "0" } });
    check("jobs: pages", (await all(w.jobs.listRuns({ job_id: 102, limit: 3 }))).length === 12);

    const submitted = await w.jobs.submit({ run_name: "once", tasks: [{ task_key: "t", notebook_task: {
        notebook_path: "/Shared/echo", base_parameters: { a: "1" } } }] });
    one = await until(() => w.jobs.getRun({ run_id: submitted.run_id }), ended);
    const result = await w.jobs.getRunOutput({ run_id: one.tasks[0].run_id });
    check("jobs: a one-time run", one.run_type === "SUBMIT_RUN" && result.notebook_output.result === '{"a":"1"}', result);
}

async function statements(cloud) {
    await cloud.config({ chunk_rows: 2 });
    const api = client(cloud).statementExecution;
    let one = await api.executeStatement({ warehouse_id: "wh1", wait_timeout: "0s",
        statement: "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i, :x AS x FROM n",
        parameters: [{ name: "x", value: "y", type: "STRING" }] });
    check("sql: begun", one.statement_id && ["PENDING", "RUNNING", "SUCCEEDED"].includes(one.status.state), one);
    one = await until(() => api.getStatement({ statement_id: one.statement_id }), one => !["PENDING", "RUNNING"].includes(one.status.state));
    check("sql: done", one.status.state === "SUCCEEDED" && one.manifest.total_row_count === 5 && one.manifest.total_chunk_count === 3, one);
    const rows = [...one.result.data_array];
    for (let chunk = one.result; chunk.next_chunk_index !== undefined; rows.push(...chunk.data_array))
        chunk = await api.getStatementResultChunkN({ statement_id: one.statement_id, chunk_index: chunk.next_chunk_index });
    check("sql: rows", JSON.stringify(rows) === JSON.stringify([1, 2, 3, 4, 5].map(i => [String(i), "y"])), rows);
    const failed = await api.executeStatement({ warehouse_id: "wh1", wait_timeout: "50s", statement: "SELECT * FROM nowhere" });
    check("sql: failed", failed.status.state === "FAILED" && failed.status.error.error_code === "BAD_REQUEST", failed.status);
    const waiting = await api.executeStatement({ warehouse_id: "wh1", wait_timeout: "0s", statement: "SELECT 1 /* wait 100000 */" });
    await api.cancelExecution({ statement_id: waiting.statement_id });
    check("sql: cancelled", (await api.getStatement({ statement_id: waiting.statement_id })).status.state === "CANCELED");
    check("sql: unknown", (await refused(() => api.getStatement({ statement_id: "none" })))?.statusCode === 404);
}

async function pipelines(cloud) {
    const api = client(cloud).pipelines;
    const end = (pipeline, id) => until(() => api.getUpdate({ pipeline_id: pipeline, update_id: id }),
        answer => ["COMPLETED", "FAILED", "CANCELED"].includes(answer.update.state));
    const { update_id } = await api.startUpdate({ pipeline_id: "flights", full_refresh_selection: ["flights"] });
    const busy = await refused(() => api.startUpdate({ pipeline_id: "flights" }));
    check("pipelines: one at a time", busy?.statusCode === 409, busy);
    const { update } = await end("flights", update_id);
    check("pipelines: completed", update.state === "COMPLETED" && update.cause === "API_CALL", update);
    check("pipelines: idle", (await api.get({ pipeline_id: "flights" })).state === "IDLE");
    check("pipelines: listed", (await api.listUpdates({ pipeline_id: "flights" })).updates.map(one => one.update_id).join() === update_id);
    const events = await all(api.listPipelineEvents({ pipeline_id: "flights", max_results: 100 }));
    check("pipelines: events", events.at(-1).event_type === "create_update" && events[0].origin.update_id === update_id, events[0]);
    const broken = await end("broken", (await api.startUpdate({ pipeline_id: "broken" })).update_id);
    check("pipelines: failed", broken.update.state === "FAILED", broken);
    await cloud.fault({ fault: "never_ends", pipeline_id: "flights" });
    const endless = await api.startUpdate({ pipeline_id: "flights" });
    await (await api.stop({ pipeline_id: "flights" })).wait();
    check("pipelines: stopped", (await end("flights", endless.update_id)).update.state === "CANCELED");
}

async function serving(cloud) {
    const api = client(cloud).servingEndpoints;
    const answer = await api.query({ name: "adder", dataframe_records: [{ a: 1, b: 2 }, { a: 3, b: 4 }] });
    check("serving: predictions", JSON.stringify(answer.predictions) === "[3,7]", answer);
    const chat = await api.query({ name: "chat", messages: [{ role: "user", content: "hello" }] });
    check("serving: chat", chat.choices[0].message.content === "hello", chat);
    check("serving: refused", (await refused(() => api.query({ name: "broken", inputs: [1] })))?.statusCode === 400);
}

await run(jobs, statements, pipelines, serving);
