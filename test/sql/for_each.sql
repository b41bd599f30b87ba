-- for_each: what is refused at definition, and what is stored.
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each"}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1]}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": "noop"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": 3, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": "abc", "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "until": 2, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "concurrency": 0, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "concurrency": 1001, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "concurrency": "{{run.id}}", "task": {"kind": "noop"}}}]}');
-- the list a statement gives
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": {"query": "SELECT 1"}, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": {"sql": ""}, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": {"sql": "SELEC 1"}, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": {"sql": "SELECT {{params.x}}"}, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": {"sql": "SELECT {{item}}"}, "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": "{{tasks.b.output.rows}}", "task": {"kind": "noop"}}}, {"name": "b", "kind": "noop"}]}');
-- the task inside
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "sqll"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "noop", "name": "b"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "noop", "depends_on": []}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "noop", "retry": {"max_attempts": 0}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "noop", "timeout": -1}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "noop", "connection": "x"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "http", "spec": {"url": "/x"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "http", "connection": "nowhere", "spec": {"url": "/x"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "sql", "spec": {"sql": "SELECT {{item.x}}, {{items}}"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "sql", "spec": {"sql": "SELECT {{item_no.x}}"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "sql", "spec": {"sql": "SELECT ''{{item.x}}''"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "sql", "spec": {"sql": "BEGIN"}}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": [1], "task": {"kind": "for_each", "spec": {"items": [2], "task": {"kind": "noop"}}}}}]}');
-- item is known nowhere else
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT {{item.x}}"}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "for_each", "spec": {"items": "{{item}}", "task": {"kind": "noop"}}}]}');
SELECT weir.create_pipeline('bad', '{"tasks": [{"name": "a", "kind": "if", "spec": {"left": "{{item_no}}", "op": "==", "right": 1}}]}');
SELECT count(*) FROM weir.pipeline WHERE name = 'bad';

-- What each item does is a task of its own, behind all others.
SELECT weir.create_pipeline('items', '{"retry": {"max_attempts": 2}, "parameters": {"objects": {"type": "json", "default": [1, 2]}}, "tasks": [
	{"name": "list", "kind": "sql", "phase": "land", "spec": {"sql": "SELECT 1 AS n"}},
	{"name": "copy_all", "kind": "for_each", "phase": "land", "depends_on": ["list"], "run_if": "all_done", "retry": {"max_attempts": 5},
	 "spec": {"items": "{{tasks.list.output.rows}}", "concurrency": 4,
		"task": {"kind": "sql", "spec": {"sql": "SELECT {{item.n}}, {{item_no}}, {{tasks.list.status}}"}, "retry": {"max_attempts": 3}, "timeout": "1 minute"}}},
	{"name": "more", "kind": "for_each", "depends_on": ["copy_all"], "spec": {"items": "{{params.objects}}", "task": {"kind": "noop"}}},
	{"name": "done", "kind": "noop", "depends_on": ["more"]}]}') > 0 AS created;
SELECT t.task_no, t.name, t.kind, t.phase, t.spec, t.max_attempts, t.attempt_timeout, t.run_if, t.wave, t.upstream_count, t.parent_no, t.concurrency
FROM weir.task t JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'items' ORDER BY t.task_no;
SELECT weir.drop_pipeline('items');
