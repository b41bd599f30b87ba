-- story-sql.sql - the part of the story that needs no cloud: two pipelines of
-- SQL tasks.  Run as a member of weir_admin, after tables.sql.

-- A diamond: two summaries side by side, then a check that they agree.
SELECT weir.create_pipeline('load_orders', $json$
{
  "parameters": {"days": {"type": "bigint", "default": 30, "description": "how many days of orders to make"}},
  "tasks": [
    {
      "name": "land_orders",
      "kind": "sql",
      "phase": "land",
      "spec": {"sql": "INSERT INTO public.orders SELECT {{row_audit_id}}, n, date '2026-01-01' + (n % {{params.days}})::integer, 'customer ' || n % 7, (n % 1000) / 10.0 FROM generate_series(1, 10000) AS n"}
    },
    {
      "name": "orders_by_day",
      "kind": "sql",
      "phase": "transform",
      "depends_on": ["land_orders"],
      "spec": {"sql": "INSERT INTO public.orders_by_day SELECT row_audit_id, order_date, count(*), sum(amount) FROM public.orders WHERE row_audit_id = {{row_audit_id}} GROUP BY row_audit_id, order_date"}
    },
    {
      "name": "orders_by_customer",
      "kind": "sql",
      "phase": "transform",
      "depends_on": ["land_orders"],
      "spec": {"sql": "INSERT INTO public.orders_by_customer SELECT row_audit_id, customer, count(*), sum(amount) FROM public.orders WHERE row_audit_id = {{row_audit_id}} GROUP BY row_audit_id, customer"}
    },
    {
      "name": "publish_totals",
      "kind": "sql",
      "phase": "publish",
      "depends_on": ["orders_by_day", "orders_by_customer"],
      "spec": {"sql": "INSERT INTO public.order_totals SELECT {{row_audit_id}}, d.orders, d.amount, d.orders = c.orders AND d.amount = c.amount FROM (SELECT sum(orders) AS orders, sum(amount) AS amount FROM public.orders_by_day WHERE row_audit_id = {{row_audit_id}}) AS d, (SELECT sum(orders) AS orders, sum(amount) AS amount FROM public.orders_by_customer WHERE row_audit_id = {{row_audit_id}}) AS c"}
    }
  ]
}
$json$::jsonb, 'Orders made, summed up in two ways and compared');

-- The second step takes its time, so that something can happen meanwhile.
SELECT weir.create_pipeline('three_steps', $json$
{
  "tasks": [
    {
      "name": "one",
      "kind": "sql",
      "phase": "land",
      "spec": {"sql": "INSERT INTO public.steps_done (run_id, step) VALUES ({{run.id}}, 'one')"}
    },
    {
      "name": "two",
      "kind": "sql",
      "phase": "transform",
      "depends_on": ["one"],
      "spec": {"sql": "INSERT INTO public.steps_done (run_id, step) SELECT {{run.id}}, 'two' FROM pg_sleep(3)"}
    },
    {
      "name": "three",
      "kind": "sql",
      "phase": "publish",
      "depends_on": ["two"],
      "spec": {"sql": "INSERT INTO public.steps_done (run_id, step) VALUES ({{run.id}}, 'three')"}
    }
  ]
}
$json$::jsonb, 'Three steps that must each happen once');
