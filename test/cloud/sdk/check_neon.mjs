// A session of Neon's SDK for JavaScript with the local cloud: it must understand every answer.
//
//     node check_neon.mjs .../test/cloud/cloud.py
//
// Needs @neondatabase/api-client.  It hands answers over as they come, so every one is looked at for what its declarations promise:
// values of its enumerations, times and ids; the published description judges the rest (../described).

import api from "@neondatabase/api-client";

import { check, refused, run, until } from "./localcloud.mjs";

const { createApiClient, EndpointPoolerMode, EndpointState, EndpointType, OperationAction, OperationStatus } = api;
const ENUMERATIONS = { action: OperationAction, status: OperationStatus };
const OF_ENDPOINTS = { type: EndpointType, pooler_mode: EndpointPoolerMode, current_state: EndpointState, pending_state: EndpointState };
const ENDED = [OperationStatus.Finished, OperationStatus.Skipped, OperationStatus.Cancelled];
const PREFIXES = { branch_id: "br-", parent_id: "br-", endpoint_id: "ep-" };

// What of an answer the SDK does not know, as texts.
function* strange(value, name = "", within = "") {
    const known = ENUMERATIONS[name] ?? (within.startsWith("endpoint") ? OF_ENDPOINTS[name] : undefined);
    if (Array.isArray(value)) {
        for (const one of value)
            yield* strange(one, "", name);
        return;
    }
    if (value === null || value === undefined)
        yield `${name} is nothing`;
    else if (typeof value === "object") {
        for (const [key, one] of Object.entries(value))
            yield* strange(one, key, name || within);
    } else if (known && !Object.values(known).includes(value))
        yield `${name} is ${value}`;
    else if (name.endsWith("_at") && !/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(value))
        yield `${name} is ${value}`;
    else if (PREFIXES[name] && !value.startsWith(PREFIXES[name]))
        yield `${name} is ${value}`;
}

function client(cloud, apiKey = "napi_local") {
    const neon = createApiClient({ apiKey, baseURL: cloud.secure + "/neon/api/v2", timeout: 60000 });
    neon.instance.interceptors.response.use(answer => {
        const found = answer.config.url === "/api_keys" ? [] : [...strange(answer.data)];       // a key that was not used yet says null
        check(`${answer.config.method} ${answer.config.url} is understood`, found.length === 0, found);
        return answer;
    }, error => {
        const body = error.response?.data;
        if (body !== undefined && error.response.status !== 429)
            check(`${error.config.method} ${error.config.url} is refused as described`, typeof body.code === "string"
                && typeof body.message === "string" && body.request_id?.length === 36, body);
        throw error;
    });
    return neon;
}

// [status, code, message] of what action is refused with.
async function error(action) {
    const found = await refused(action);
    return found?.response ? [found.response.status, found.response.data.code, found.response.data.message] : [];
}

const same = (found, expected) => JSON.stringify(found) === JSON.stringify(expected);
const first = async promise => (await promise).data;

// After all operations of an answer have ended; the statuses of each as they were seen.
async function settled(neon, answer) {
    const seen = {};
    for (const { id, project_id, action, status } of answer.data.operations) {
        const states = seen[action] = [status];
        const last = await until(async () => {
            const { operation } = (await neon.getProjectOperation(project_id, id)).data;
            if (operation.status !== states.at(-1))
                states.push(operation.status);
            return operation;
        }, one => ENDED.includes(one.status));
        check(`${action} finished`, last.status === OperationStatus.Finished, last);
    }
    return seen;
}

async function make(neon, project) {
    const answer = await neon.createProject({ project });
    await settled(neon, answer);
    return answer.data;
}

async function keys(cloud) {
    const neon = client(cloud);
    const unknown = [401, "", "supplied credentials do not pass authentication"];
    check("keys: a wrong one", same(await error(() => client(cloud, "wrong").listProjects({})), unknown));
    check("keys: none", same(await error(() => client(cloud, "").listProjects({})), unknown));
    const named = await refused(() => client(cloud, "wrong").getProject("p", { headers: { "X-Request-ID": "11111111-2222-3333-4444-555555555555" } }));
    check("keys: a request named by its caller", named?.response.data.request_id === "11111111-2222-3333-4444-555555555555", named?.response.data);
    const { id, key } = (await neon.createApiKey({ key_name: "mine" })).data;
    const own = client(cloud, key);
    check("keys: a new one", (await own.getCurrentUserInfo()).data.email === "local@example.com");
    check("keys: listed", (await own.listApiKeys()).data.find(one => one.id === id)?.name === "mine");
    check("keys: revoked", (await neon.revokeApiKey(id)).data.revoked === true && same(await error(() => own.getCurrentUserInfo()), unknown));
    check("keys: a personal one", (await error(() => client(cloud, "napi_personal").listProjects({})))[2]?.startsWith("org_id is required"));
    check("keys: of an organization", (await client(cloud, "napi_personal").listProjects({ org_id: "org-local-lake-00000001" })).status === 200);
}

async function projects(cloud) {
    const neon = client(cloud);
    const made = await make(neon, { name: "first", pg_version: 16, region_id: "aws-eu-central-1", history_retention_seconds: 3600,
        branch: { name: "production", database_name: "lake", role_name: "owner" },
        default_endpoint_settings: { autoscaling_limit_min_cu: 0.5, autoscaling_limit_max_cu: 2, suspend_timeout_seconds: 300 } });
    const parameters = made.connection_uris[0].connection_parameters;
    check("projects: made", made.branch.name === "production" && made.branch.default && made.databases[0].owner_name === "owner"
        && made.roles[0].password === parameters.password && made.endpoints[0].autoscaling_limit_max_cu === 2
        && made.project.proxy_host === "eu-central-1.aws.neon.tech" && parameters.pooler_host.startsWith(made.endpoints[0].id + "-pooler."), made);
    check("projects: where to connect", new URL(made.connection_uris[0].connection_uri).pathname === "/lake", made.connection_uris);
    const project = (await neon.getProject(made.project.id)).data.project;
    check("projects: one", project.pg_version === 16 && project.history_retention_seconds === 3600, project);
    for (const name of ["second", "third"])
        await make(neon, { name });
    const names = [];
    for (let cursor; ;) {
        const { data } = await neon.listProjects({ limit: 2, cursor });
        names.push(...data.projects.map(one => one.name));
        if (data.projects.length < 2)
            break;
        cursor = data.pagination.cursor;
    }
    check("projects: pages", names.join() === "first,second,third", names);
    check("projects: searched", (await neon.listProjects({ search: "eco" })).data.projects.map(one => one.name).join() === "second");
    check("projects: updated", (await neon.updateProject(made.project.id, { project: { name: "renamed" } })).data.project.name === "renamed");
    check("projects: a limit", (await error(() => neon.listProjects({ limit: 0 })))[0] === 400);
    check("projects: unknown", same(await error(() => neon.getProject("none")), [404, "", "project not found"]));
    await neon.deleteProject(made.project.id);
    check("projects: deleted", (await error(() => neon.getProject(made.project.id)))[0] === 404);
}

async function branches(cloud) {
    const neon = client(cloud);
    const { project: { id: project }, branch: main } = await make(neon, { name: "branches" });
    await cloud.config({ speed: 1e-6 });            // operations stand still
    const plain = await neon.createProjectBranch(project);
    check("branches: without a body", plain.status === 201 && plain.data.branch.parent_id === main.id && plain.data.branch.name === plain.data.branch.id
        && plain.data.endpoints.length === 0 && plain.data.connection_uris === undefined && plain.data.databases[0].name === "neondb", plain.data);
    const locked = await error(() => neon.createProjectBranch(project, { branch: { name: "x" } }));
    check("branches: locked", same(locked, [423, "", "project already has running conflicting operations, scheduling of new ones is prohibited"]), locked);
    await cloud.config({ speed: 10 });
    await settled(neon, plain);
    const annotated = await neon.createProjectBranch(project, { branch: { name: "preview/1" }, endpoints: [{ type: EndpointType.ReadWrite }],
        annotation_value: { "pull-request": "1" } });
    const seen = await settled(neon, annotated);
    check("branches: one operation after the other", same(seen.create_branch[0], "running") && seen.start_compute[0] === "scheduling"
        && seen.start_compute.at(-1) === "finished", seen);
    const { branch, annotation } = (await neon.getProjectBranch(project, annotated.data.branch.id)).data;
    check("branches: one", branch.current_state === "ready" && branch.pending_state === undefined && annotation.value["pull-request"] === "1", branch);
    const listed = (await neon.listProjectBranches({ projectId: project, sort_by: "created_at", sort_order: "asc", limit: 2 })).data;
    const rest = (await neon.listProjectBranches({ projectId: project, sort_by: "created_at", sort_order: "asc", limit: 2, cursor: listed.pagination.next })).data;
    check("branches: pages", listed.branches[0].id === main.id && rest.branches.map(one => one.name).join() === "preview/1"
        && rest.pagination.next === undefined && rest.annotations[branch.id], [listed, rest]);
    check("branches: counted", (await neon.countProjectBranches({ projectId: project, search: "preview" })).data.count === 1);
    check("branches: no such order", (await error(() => neon.listProjectBranches({ projectId: project, sort_by: "colour" })))[0] === 400);
    const expiring = await neon.createProjectBranch(project, { branch: { name: "short", expires_at: new Date(Date.now() + 5000).toISOString() } });
    check("branches: for a time", expiring.data.branch.expires_at && expiring.data.branch.ttl_interval_seconds <= 5, expiring.data.branch);
    await settled(neon, expiring);
    check("branches: and gone", (await until(() => error(() => neon.getProjectBranch(project, expiring.data.branch.id)), found => found[0] === 404))[0] === 404);
    await until(async () => (await neon.listProjectOperations({ projectId: project })).data.operations, all => all.every(one => ENDED.includes(one.status)));
    const schema = await neon.createProjectBranch(project, { branch: { name: "empty", init_source: "schema-only" } });
    check("branches: the schema only", schema.data.branch.parent_id === undefined && schema.data.operations.some(one => one.action === OperationAction.ApplySchemaFromBranch), schema.data);
    await settled(neon, schema);
    const chosen = (await neon.setDefaultProjectBranch(project, branch.id)).data;
    check("branches: the default", chosen.branch.default && chosen.operations.length === 0);
    check("branches: the default stays", (await error(() => neon.deleteProjectBranch({ projectId: project, branchId: branch.id })))[0] === 422);
    const gone = await neon.deleteProjectBranch({ projectId: project, branchId: plain.data.branch.id });
    check("branches: deleted", gone.status === 200 && gone.data.operations.at(-1).action === OperationAction.DeleteTimeline, gone.data);
    await settled(neon, gone);
    check("branches: nothing to delete", (await neon.deleteProjectBranch({ projectId: project, branchId: plain.data.branch.id })).status === 204);
    await cloud.config({ neon_branches_limit: 3 });
    check("branches: too many", same((await error(() => neon.createProjectBranch(project)))?.slice(0, 2), [422, "BRANCHES_LIMIT_EXCEEDED"]));
    await cloud.config({ neon_branches_limit: 500 });
}

async function restores(cloud) {
    const neon = client(cloud);
    const { project: { id: project }, branch: { id: main } } = await make(neon, { name: "restores" });
    const databases = async branch => (await neon.listProjectBranchDatabases(project, branch)).data.databases.map(one => one.name).join();
    const add = async name => settled(neon, await neon.createProjectBranchDatabase(project, main, { database: { name, owner_name: "neondb_owner" } }));
    await add("before");
    const moment = new Date().toISOString();
    await add("after");
    const past = await neon.createProjectBranch(project, { branch: { name: "past", parent_timestamp: moment } });
    await settled(neon, past);
    check("restore: a branch of then", await databases(past.data.branch.id) === "neondb,before", await databases(past.data.branch.id));
    const child = await neon.createProjectBranch(project, { branch: { name: "child" } });
    await settled(neon, child);
    const before = (await neon.getProjectBranch(project, main)).data.branch;
    check("restore: itself, without a name", (await error(() => neon.restoreProjectBranch(project, main, { source_branch_id: main, source_timestamp: moment })))[0] === 422);
    const answer = await neon.restoreProjectBranch(project, main, { source_branch_id: main, source_timestamp: moment, preserve_under_name: "main-before" });
    check("restore: begun", answer.data.branch.id === main && answer.data.branch.current_state === "resetting"
        && answer.data.operations.map(one => one.action).join() === "suspend_compute,create_branch,start_compute", answer.data);
    await settled(neon, answer);
    const all = (await neon.listProjectBranches({ projectId: project })).data.branches;
    const backup = all.find(one => one.name === "main-before");
    check("restore: back then", await databases(main) === "neondb,before" && await databases(backup.id) === "neondb,before,after");
    check("restore: the children are the backup's", all.filter(one => one.parent_id === backup.id).map(one => one.name).sort().join() === "child,past", all);
    const after = all.find(one => one.id === main);
    check("restore: the same branch", after.name === before.name && after.default && after.last_reset_at && after.created_at === before.created_at, after);
    const endpoints = (await neon.listProjectBranchEndpoints(project, main)).data.endpoints;
    check("restore: with its compute", endpoints.length === 1 && endpoints[0].current_state === EndpointState.Active, endpoints);
    await settled(neon, await neon.restoreProjectBranch(project, child.data.branch.id, { source_branch_id: past.data.branch.id,
        source_lsn: (await neon.getProjectBranch(project, past.data.branch.id)).data.branch.parent_lsn }));
    check("restore: to another's beginning", await databases(child.data.branch.id) === "neondb,before"
        && (await neon.getProjectBranch(project, child.data.branch.id)).data.branch.parent_id === past.data.branch.id);
    await neon.updateProjectBranch(project, child.data.branch.id, { branch: { protected: true } });
    check("restore: not of a protected one", (await error(() => neon.restoreProjectBranch(project, child.data.branch.id, { source_branch_id: main })))[0] === 422);
}

async function computes(cloud) {
    const neon = client(cloud);
    const { project: { id: project }, branch: { id: main }, endpoints: [{ id: writer }] } = await make(neon, { name: "computes" });
    await cloud.config({ speed: 1e-6 });
    const reader = await neon.createProjectEndpoint(project, { endpoint: { branch_id: main, type: EndpointType.ReadOnly } });
    check("computes: begun", reader.status === 201 && reader.data.endpoint.current_state === EndpointState.Init
        && reader.data.endpoint.pending_state === EndpointState.Active, reader.data);
    check("computes: in between", same((await error(() => neon.suspendProjectEndpoint(project, reader.data.endpoint.id))),
        [423, "", "endpoint is in some transitive state, could not suspend"]));
    await cloud.config({ speed: 10 });
    await settled(neon, reader);
    await settled(neon, await neon.restartProjectEndpoint(project, writer));
    await settled(neon, await neon.suspendProjectEndpoint(project, writer));
    const idle = (await neon.getProjectEndpoint(project, writer)).data.endpoint;
    check("computes: suspended", idle.current_state === EndpointState.Idle && idle.suspended_at && idle.started_at, idle);
    await settled(neon, await neon.startProjectEndpoint(project, writer));
    await settled(neon, await neon.updateProjectEndpoint(project, writer, { endpoint: { disabled: true } }));
    check("computes: disabled", (await error(() => neon.startProjectEndpoint(project, writer)))[0] === 422);
    await settled(neon, await neon.deleteProjectEndpoint(project, writer));
    check("computes: gone", (await neon.listProjectEndpoints(project)).data.endpoints.map(one => one.id).join() === reader.data.endpoint.id
        && (await neon.deleteProjectEndpoint(project, writer)).status === 204);
    check("computes: nothing that writes", (await error(() => neon.getConnectionUri({ projectId: project, branch_id: main, database_name: "neondb",
        role_name: "neondb_owner" })))[0] === 404);
    const { uri } = (await neon.getConnectionUri({ projectId: project, endpoint_id: reader.data.endpoint.id, database_name: "neondb", role_name: "neondb_owner",
        pooled: false })).data;
    check("computes: where", new URL(uri).hostname === reader.data.endpoint.host && new URL(uri).searchParams.get("sslmode") === "require", uri);
    await settled(neon, await neon.createProjectBranchRole(project, main, { role: { name: "reader" } }));
    check("roles: a password", (await neon.getProjectBranchRolePassword(project, main, "reader")).data.password.startsWith("npg_"));
}

async function faults(cloud) {
    const neon = client(cloud);
    const { project: { id: project } } = await make(neon, { name: "faults" });
    await cloud.fault({ operation: "neon.project-list", status: 429, retry_after: 7 });
    const limited = await refused(() => neon.listProjects({}));
    check("faults: too many requests", limited?.response.status === 429 && limited.response.headers["retry-after"] === "7", limited);
    await cloud.fault({ operation: "neon.branch-create", fault: "reset_before" });
    check("faults: cut before", (await refused(() => neon.createProjectBranch(project)))?.response === undefined);
    check("faults: nothing was done", (await first(neon.listProjectBranches({ projectId: project }))).branches.length === 1);
    await cloud.fault({ operation: "neon.branch-create", fault: "half_body" });
    check("faults: cut in the middle", await refused(() => neon.createProjectBranch(project)));
    check("faults: it was done", (await first(neon.listProjectBranches({ projectId: project }))).branches.length === 2);
    await until(() => first(neon.listProjectOperations({ projectId: project, limit: 1 })), one => one.operations[0].status === OperationStatus.Finished);
    const { faults: [fault] } = await (await cloud.fault({ fault: "task_fails", action: "create_branch", project_id: project, message: "no room",
        times: null })).json();
    const answer = await neon.createProjectBranch(project, { branch: { name: "late" } });
    const { id } = answer.data.operations[0];
    const failed = await until(() => first(neon.getProjectOperation(project, id)), one => one.operation.status === OperationStatus.Failed);
    check("faults: an operation fails", failed.operation.error === "no room" && failed.operation.retry_at, failed);
    await fetch(`${cloud.address}/_cloud/faults/${fault.id}`, { method: "DELETE" });
    check("faults: and is tried again", (await settled(neon, answer)).create_branch.at(-1) === "finished");
    const pages = [];
    for (let cursor; ;) {
        const { operations, pagination } = await first(neon.listProjectOperations({ projectId: project, limit: 2, cursor }));
        if (!operations.length)
            break;
        pages.push(operations.map(one => one.action));
        cursor = pagination.cursor;
    }
    check("operations: pages, the newest first", same(pages, [["create_branch", "create_branch"], ["start_compute", "create_timeline"]]), pages);
}

await run(keys, projects, branches, restores, computes, faults);
