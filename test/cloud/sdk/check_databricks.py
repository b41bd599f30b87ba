#!/usr/bin/env python3
"""A session of Databricks' SDK for Python with the local cloud: it must understand every answer.

    python3 test/cloud/sdk/check_databricks.py

Needs databricks-sdk; paths, query strings, (de)serialisation, paging and errors are the SDK's.
"""

import datetime
import sys
import time

from localcloud import LocalCloud, check, control, post, refused, summary, until


def arm_token(address):
    return post(address, "/t/oauth2/v2.0/token", {
        "grant_type": "client_credentials", "client_id": "weir-client", "client_secret": "weir-secret",
        "scope": "https://management.azure.com/.default"}, form=True)["access_token"]


def land(address, row_audit_id):
    """Run the copy, without an SDK, so that the job has something to transform."""
    post(address, "/adf/subscriptions/s1/resourceGroups/rg/providers/Microsoft.DataFactory/factories/df"
         "/pipelines/copy_flights/createRun?api-version=2018-06-01", {"row_audit_id": row_audit_id},
         headers={"Authorization": "Bearer " + arm_token(address)})
    until(lambda: control(address, "runs")["adf"][-1]["status"], lambda status: status == "Succeeded")


def databricks(address):
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import InvalidParameterValue, PermissionDenied, ResourceDoesNotExist
    from databricks.sdk.service.jobs import (QueueSettings, RepairHistoryItemType, RunLifecycleStateV2State,
                                             RunResultState, TerminationCodeCode)
    w = WorkspaceClient(host=address, token="dapi-local", auth_type="pat")
    check("databricks: list jobs", {job.settings.name for job in w.jobs.list()} >= {"transform_flights", "wait"})
    check("databricks: get a job", len(w.jobs.get(101).settings.tasks) == 2)
    check("databricks: unknown run", refused(lambda: w.jobs.get_run(17), ResourceDoesNotExist) is not None)
    check("databricks: unknown job", refused(lambda: w.jobs.run_now(17), InvalidParameterValue) is not None)
    other = WorkspaceClient(host=address, token="dapi-wrong", auth_type="pat")
    check("databricks: wrong token", refused(lambda: list(other.jobs.list_runs()), PermissionDenied) is not None)
    m2m = WorkspaceClient(host=address, client_id="weir-client", client_secret="weir-secret", auth_type="oauth-m2m")
    check("databricks: OAuth", m2m.jobs.get(102).job_id == 102)

    land(address, 31)
    post(address, "/_cloud/faults", {"fault": "task_fails", "job_id": 101, "task_key": "load_flights", "message": "lost"})
    started = w.jobs.run_now(101, idempotency_token="sdk", job_parameters={"row_audit_id": "31"},
                             queue=QueueSettings(enabled=True))
    check("databricks: ids survive", started.run_id > 2 ** 53 and started.bind()["run_id"] == started.run_id)
    check("databricks: same token", w.jobs.run_now(101, idempotency_token="sdk").run_id == started.run_id)
    seen = set()
    while True:
        run = w.jobs.get_run(started.run_id, include_history=True)
        seen.add(run.status.state)
        if run.status.state == RunLifecycleStateV2State.TERMINATED:
            break
        time.sleep(0.005)
    check("databricks: states", RunLifecycleStateV2State.RUNNING in seen, seen)
    check("databricks: failed", run.state.result_state == RunResultState.FAILED and
          run.status.termination_details.code == TerminationCodeCode.RUN_EXECUTION_ERROR, run.state)
    failing = next(task for task in run.tasks if task.task_key == "load_flights")
    output = w.jobs.get_run_output(failing.run_id)
    check("databricks: output", output.error == "lost" and output.error_trace, output)
    check("databricks: output of a whole run", refused(lambda: w.jobs.get_run_output(run.run_id), InvalidParameterValue))
    run = w.jobs.repair_run(run.run_id, rerun_all_failed_tasks=True).result(timeout=datetime.timedelta(seconds=20))
    check("databricks: repaired", run.state.result_state == RunResultState.SUCCESS, run.state)
    run = w.jobs.get_run(run.run_id, include_history=True)
    check("databricks: history", [item.type for item in run.repair_history] ==
          [RepairHistoryItemType.ORIGINAL, RepairHistoryItemType.REPAIR], run.repair_history)
    waiting = w.jobs.run_now(102, job_parameters={"seconds": "100000"})
    run = w.jobs.cancel_run_and_wait(waiting.run_id, timeout=datetime.timedelta(seconds=20))
    check("databricks: cancelled", run.state.result_state == RunResultState.CANCELED, run.state)
    for _ in range(30):
        w.jobs.run_now(102, job_parameters={"seconds": "0"})
    check("databricks: paged list", len(list(w.jobs.list_runs(job_id=102, limit=7))) == 31)
    unknown = refused(lambda: w.jobs.cancel_run(5), InvalidParameterValue)
    check("databricks: cancel of nothing", unknown is not None)


def one_time(address):
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import InvalidParameterValue
    from databricks.sdk.service import compute, jobs
    w = WorkspaceClient(host=address, token="dapi-local", auth_type="pat")
    soon = datetime.timedelta(seconds=20)

    def submit(token=None, **task):
        environments = [jobs.JobEnvironment("e", compute.Environment(environment_version="2"))]
        return w.jobs.submit(run_name="once", idempotency_token=token, environments=environments,
                             tasks=[jobs.SubmitTask(task_key="t", **task)])

    waiting = submit("once", notebook_task=jobs.NotebookTask("/Shared/echo", {"a": "1"}))
    check("one-time: same token", submit("once", notebook_task=jobs.NotebookTask("/Shared/echo")).run_id == waiting.run_id)
    run = waiting.result(timeout=soon)
    check("one-time: a notebook", run.run_type == jobs.RunType.SUBMIT_RUN and run.tasks[0].notebook_task.notebook_path
          and run.state.result_state == jobs.RunResultState.SUCCESS, run)
    output = w.jobs.get_run_output(run.tasks[0].run_id)
    check("one-time: its exit value", output.notebook_output.result == '{"a":"1"}', output)
    run = submit(spark_python_task=jobs.SparkPythonTask("/Shared/echo.py", ["x"]), environment_key="e").result(timeout=soon)
    check("one-time: logs", "begins" in w.jobs.get_run_output(run.tasks[0].run_id).logs)
    run = submit(spark_jar_task=jobs.SparkJarTask(main_class_name="com.example.echo"), existing_cluster_id="c",
                 libraries=[compute.Library(jar="/x.jar")]).result(timeout=soon)
    check("one-time: a JAR", run.tasks[0].spark_jar_task.main_class_name == "com.example.echo", run)
    run = submit(sql_task=jobs.SqlTask("wh1", file=jobs.SqlTaskFile("/Shared/echo.sql"))).result(timeout=soon)
    check("one-time: a SQL file", w.jobs.get_run_output(run.tasks[0].run_id).sql_output.query_output.warehouse_id == "wh1")
    check("one-time: no compute", refused(lambda: submit(spark_jar_task=jobs.SparkJarTask(main_class_name="a")),
                                          InvalidParameterValue))


def statements(address):
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import ResourceDoesNotExist
    from databricks.sdk.service import sql
    w = WorkspaceClient(host=address, token="dapi-local", auth_type="pat")
    api = w.statement_execution
    post(address, "/_cloud/config", {"chunk_rows": 2})
    answer = api.execute_statement("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) "
                                   "SELECT i, i * :f AS d, NULL AS z FROM n", "wh1", wait_timeout="0s",
                                   parameters=[sql.StatementParameterListItem("f", type="DOUBLE", value="0.5")],
                                   query_tags=[sql.QueryTag("weir_token", "abc")], row_limit=100)
    seen = set()
    while answer.status.state in (sql.StatementState.PENDING, sql.StatementState.RUNNING):
        seen.add(answer.status.state)
        answer = api.get_statement(answer.statement_id)
    check("sql: states", sql.StatementState.PENDING in seen and answer.status.state == sql.StatementState.SUCCEEDED, answer)
    check("sql: manifest", [(c.name, c.type_name) for c in answer.manifest.schema.columns] ==
          [("i", sql.ColumnInfoTypeName.LONG), ("d", sql.ColumnInfoTypeName.DOUBLE), ("z", sql.ColumnInfoTypeName.STRING)]
          and answer.manifest.total_row_count == 5 and answer.manifest.total_chunk_count == 3, answer.manifest)
    rows, chunk = list(answer.result.data_array), answer.result
    while chunk.next_chunk_index is not None:
        check("sql: link", f"/result/chunks/{chunk.next_chunk_index}" in chunk.next_chunk_internal_link)
        chunk = api.get_statement_result_chunk_n(answer.statement_id, chunk.next_chunk_index)
        rows += chunk.data_array
    check("sql: rows", rows == [[str(i), str(i / 2), None] for i in range(1, 6)], rows)
    done = api.execute_statement("CREATE TABLE t (a)", "wh1", wait_timeout="50s")
    check("sql: waited for", done.status.state == sql.StatementState.SUCCEEDED, done)
    done = api.execute_statement("INSERT INTO t VALUES (1), (2)", "wh1", wait_timeout="50s")
    check("sql: changed rows", done.result.data_array[0][0] == "2" and done.manifest.schema.columns[0].name == "num_affected_rows")
    done = api.execute_statement("SELECT * FROM nowhere", "wh1", wait_timeout="50s")
    check("sql: failed", done.status.state == sql.StatementState.FAILED and "TABLE_OR_VIEW_NOT_FOUND" in done.status.error.message
          and done.status.error.error_code == sql.ServiceErrorCode.BAD_REQUEST, done.status)
    waiting = api.execute_statement("SELECT 1 /* wait 100000 */", "wh1", wait_timeout="0s")
    api.cancel_execution(waiting.statement_id)
    check("sql: cancelled", api.get_statement(waiting.statement_id).status.state == sql.StatementState.CANCELED)
    check("sql: unknown statement", refused(lambda: api.get_statement("none"), ResourceDoesNotExist))
    post(address, "/_cloud/config", {"history_delay_ms": 0})
    wanted = sql.QueryFilter(warehouse_ids=["wh1"], query_start_time_range=sql.TimeRange(start_time_ms=1))
    found = w.query_history.list(filter_by=wanted, max_results=2)
    check("sql: history", len(found.res) == 2 and found.has_next_page and found.res[0].query_id == waiting.statement_id, found)
    tagged = []
    while True:
        tagged += [line.query_id for line in found.res for tag in line.query_tags or [] if (tag.key, tag.value) == ("weir_token", "abc")]
        if not found.next_page_token:
            break
        found = w.query_history.list(filter_by=wanted, max_results=2, page_token=found.next_page_token)
    check("sql: found by its tag", tagged == [answer.statement_id], tagged)


def pipelines(address):
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import ResourceConflict, ResourceDoesNotExist
    from databricks.sdk.service.pipelines import EventLevel, PipelineState, UpdateInfoCause, UpdateInfoState
    w = WorkspaceClient(host=address, token="dapi-local", auth_type="pat")

    def end(pipeline, update):
        seen = []
        while True:
            info = w.pipelines.get_update(pipeline, update).update
            seen.append(info.state)
            if info.state in (UpdateInfoState.COMPLETED, UpdateInfoState.FAILED, UpdateInfoState.CANCELED):
                return info, seen
            time.sleep(0.005)

    update = w.pipelines.start_update("flights", full_refresh_selection=["flights"]).update_id
    check("pipelines: one at a time", refused(lambda: w.pipelines.start_update("flights"), ResourceConflict))
    info, seen = end("flights", update)
    check("pipelines: states", info.state == UpdateInfoState.COMPLETED and UpdateInfoState.RUNNING in seen
          and info.full_refresh_selection == ["flights"] and info.cause == UpdateInfoCause.API_CALL, info)
    check("pipelines: idle", w.pipelines.get("flights").state == PipelineState.IDLE)
    check("pipelines: listed", [one.update_id for one in w.pipelines.list_updates("flights").updates] == [update])
    # the SDK sends the order again with the token of the next page, which the description forbids
    events = list(w.pipelines.list_pipeline_events("flights", max_results=3))
    check("pipelines: events", events[-1].event_type == "create_update" and events[0].origin.update_id == update
          and any(event.event_type == "flow_progress" and event.level == EventLevel.METRICS for event in events), events[0])
    oldest = next(iter(w.pipelines.list_pipeline_events("flights", order_by=["timestamp asc"])))
    check("pipelines: events in order", oldest.id == events[-1].id, oldest)
    info, _ = end("broken", w.pipelines.start_update("broken").update_id)
    error = next(event for event in w.pipelines.list_pipeline_events("broken") if event.error)
    check("pipelines: failed", info.state == UpdateInfoState.FAILED and "nowhere" in error.error.exceptions[0].message, error)
    first = w.pipelines.start_update("shaky").update_id
    check("pipelines: fails first", end("shaky", first)[0].state == UpdateInfoState.FAILED)
    while True:
        latest = w.pipelines.get("shaky").latest_updates[0]
        if latest.update_id != first:
            break
        time.sleep(0.005)
    info, _ = end("shaky", latest.update_id)
    check("pipelines: retried", info.cause == UpdateInfoCause.RETRY_ON_FAILURE and info.state == UpdateInfoState.COMPLETED, info)
    post(address, "/_cloud/faults", {"fault": "never_ends", "pipeline_id": "flights"})
    update = w.pipelines.start_update("flights").update_id
    w.pipelines.stop("flights")
    check("pipelines: stopped", end("flights", update)[0].state == UpdateInfoState.CANCELED)
    check("pipelines: unknown", refused(lambda: w.pipelines.get("none"), ResourceDoesNotExist))


def serving(address):
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.errors import BadRequest, ResourceDoesNotExist
    from databricks.sdk.service.serving import ChatMessage, ChatMessageRole, DataframeSplitInput
    w = WorkspaceClient(host=address, token="dapi-local", auth_type="pat")
    for name, arguments in (("records", {"dataframe_records": [{"a": 1, "b": 2}, {"a": 3, "b": 4}]}),
                            ("split", {"dataframe_split": DataframeSplitInput(columns=["a", "b"], data=[[1, 2], [3, 4]])}),
                            ("instances", {"instances": [[1, 2], [3, 4]]}), ("inputs", {"inputs": {"a": [1, 3], "b": [2, 4]}})):
        check(f"serving: {name}", w.serving_endpoints.query("adder", **arguments).predictions == [3, 7])
    answer = w.serving_endpoints.query("chat", messages=[ChatMessage(content="hello", role=ChatMessageRole.USER)])
    check("serving: chat", answer.choices[0].message.content == "hello" and answer.usage.total_tokens == 2, answer)
    check("serving: refused", refused(lambda: w.serving_endpoints.query("broken", inputs=[1]), BadRequest))
    check("serving: unknown", refused(lambda: w.serving_endpoints.query("none", inputs=[1]), ResourceDoesNotExist))


def main():
    with LocalCloud() as cloud:
        for session in (databricks, one_time, statements, pipelines, serving):
            session(cloud.address)
    return summary()


if __name__ == "__main__":
    sys.exit(main())
