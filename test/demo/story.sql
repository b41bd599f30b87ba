-- story.sql - what the story needs in weir: secrets, connections, pipelines.
-- The demo and the tests share it.  psql variable: cloud, the address of the
-- local cloud.  Run as a member of weir_admin, after tables.sql.

-- Secrets are stored encrypted; connections name them.
SELECT weir.create_secret('dbx_token', 'dapi-local', NULL, 'token for the Databricks workspace');
SELECT weir.create_secret('entra_secret', 'weir-secret', NULL, 'client secret of the app registration');

SELECT weir.create_connection('dbx_dev', 'databricks', :'cloud' || '/dbx',
	'{"type": "pat", "token": "dbx_token"}'::jsonb,
	'{}'::jsonb,
	'Databricks workspace of the developers');

SELECT weir.create_connection('adf_dev', 'adf', :'cloud' || '/adf',
	jsonb_build_object('type', 'entra_client_secret', 'tenant_id', 'local', 'client_id', 'weir-client',
					   'client_secret', 'entra_secret', 'authority', :'cloud'),
	'{"subscription_id": "s1", "resource_group": "rg-dev", "factory": "adf-dev", "settle_seconds": 1}'::jsonb,
	'Data factory of the developers');

-- land -> transform -> publish
SELECT weir.create_pipeline('load_flights', $json$
{
  "tasks": [
    {
      "name": "copy_flights",
      "kind": "adf_pipeline",
      "connection": "adf_dev",
      "phase": "land",
      "retry": {"max_attempts": 2, "initial_delay": "1 second"},
      "spec": {"pipeline": "copy_flights", "parameters": {"row_audit_id": "{{row_audit_id}}"}}
    },
    {
      "name": "transform_flights",
      "kind": "databricks_job",
      "connection": "dbx_dev",
      "phase": "transform",
      "depends_on": ["copy_flights"],
      "spec": {"job_id": 101, "job_parameters": {"row_audit_id": "{{row_audit_id}}"}}
    },
    {
      "name": "publish_flights",
      "kind": "sql",
      "phase": "publish",
      "depends_on": ["transform_flights"],
      "spec": {"sql": "WITH gone AS (DELETE FROM public.flights WHERE row_audit_id = {{row_audit_id}}) INSERT INTO public.flights SELECT row_audit_id, flight_date, carrier, flight, origin, dest, dep_delay, arr_delay, departure_delayed, cancelled FROM staging.flights WHERE row_audit_id = {{row_audit_id}}"}
    }
  ]
}
$json$::jsonb, 'Flights from New York: copied, cleaned, published');
