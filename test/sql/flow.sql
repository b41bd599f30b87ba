-- Definitions that say when a task runs: what is refused, and what is stored.
-- Dependencies
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": [{"task": "a", "condition": "succeeded"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": [{"condition": "failed"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": [{"task": "a", "when": "failed"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": [{"task": ["a"]}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": ["a", {"task": "a", "condition": "failed"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop", "depends_on": [{"task": "a", "branch": "true"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "if", "spec": {"left": 1, "op": "==", "right": 1}}, {"name": "b", "kind": "noop", "depends_on": [{"task": "a", "branch": "yes"}]}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "if", "spec": {"left": 1, "op": "==", "right": 1}}, {"name": "b", "kind": "noop", "depends_on": [{"task": "a", "branch": "true", "condition": "failed"}]}]}');
-- run_if, enabled, on_failure
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "run_if": "sometimes"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "run_if": 1}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop", "enabled": "no"}]}');
SELECT weir.create_pipeline('bad', '{"on_failure": "fail-fast", "tasks": [{"name": "a", "kind": "noop"}]}');
-- if and switch
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "if", "spec": {"left": 1, "op": "~", "right": 1}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "if", "spec": {"left": 1, "op": "=="}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "switch", "spec": {"on": 1, "cases": []}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "switch", "spec": {"on": 1, "cases": ["x", "default"]}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "switch", "spec": {"on": 1, "cases": ["{{run.id}}"]}}]}');
-- a handler may ask for the error of what failed, and only of that
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "sql", "spec": {"sql": "SELECT {{tasks.a.error}}"}}]}');
SELECT count(*) FROM weir.pipeline WHERE name = 'bad';

SELECT weir.create_pipeline('flow', '{"on_failure": "fail_fast", "tasks": [
	{"name": "load", "kind": "noop"},
	{"name": "check", "kind": "if", "depends_on": ["load"], "spec": {"left": "{{run.id}}", "op": "GREATER_THAN", "right": 0}},
	{"name": "yes", "kind": "noop", "depends_on": [{"task": "check", "branch": "true"}, {"task": "load", "condition": "done"}]},
	{"name": "alert", "kind": "noop", "depends_on": ["load"], "run_if": "at_least_one_failed"},
	{"name": "old", "kind": "noop", "enabled": false}]}') > 0 AS created;
SELECT on_failure FROM weir.pipeline_version JOIN weir.pipeline USING (pipeline_id) WHERE name = 'flow';
SELECT t.name, t.run_if, t.is_enabled, u.name AS upstream, d.condition, d.branch
FROM weir.task t JOIN weir.pipeline p USING (pipeline_id)
	LEFT JOIN weir.task_dependency d USING (pipeline_id, version, task_no)
	LEFT JOIN weir.task u ON u.pipeline_id = t.pipeline_id AND u.version = t.version AND u.task_no = d.upstream_no
WHERE p.name = 'flow' ORDER BY t.task_no, d.upstream_no;
SELECT weir.drop_pipeline('flow');

-- What the statements that advance a run decide by
SELECT c AS condition, s AS status, weir._edge_result(c, s, true) AS result
FROM unnest('{success,failed,skipped,done}'::text[]) AS c, unnest('{succeeded,failed,blocked,skipped}'::text[]) AS s;
SELECT weir._flow_decide('none_failed', 2, 0, 0, 1), weir._flow_decide('none_failed', 2, 1, 0, 0), weir._flow_decide('none_failed', 2, 0, 0, 2);
SELECT weir._flow_decide('nonsense', 1, 0, 0, 0);

-- a task that is there for failures hears of one from whatever it depends on
SELECT weir.create_pipeline('fl_react', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop"},
	{"name": "h", "kind": "noop", "depends_on": [{"task": "a", "condition": "failed"}, {"task": "b", "condition": "done"}], "run_if": "at_least_one_failed"}]}') AS version;
SELECT d.upstream_no, d.condition FROM weir.task_dependency d JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'fl_react' ORDER BY 1;
SELECT weir.describe_pipeline('fl_react') #> '{tasks,2,depends_on,0}' AS as_it_was_given;
-- and one that could never hear of any is refused
SELECT weir.create_pipeline('fl_deaf', '{"tasks": [{"name": "a", "kind": "noop"},
	{"name": "h", "kind": "noop", "depends_on": [{"task": "a", "condition": "done"}], "run_if": "at_least_one_failed"}]}');
SELECT weir.create_pipeline('fl_deaf', '{"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "noop"},
	{"name": "h", "kind": "noop", "depends_on": ["a", {"task": "b", "condition": "done"}], "run_if": "all_failed"}]}');
