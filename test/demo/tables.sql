-- tables.sql - the tables of the story: where the transforming job delivers
-- (test/cloud/staging.sql makes staging.flights) and what is published.
-- Run as the role that will own them.

CREATE TABLE public.flights (
	row_audit_id	bigint NOT NULL,
	flight_date		date NOT NULL,
	carrier			text NOT NULL,
	flight			integer NOT NULL,
	origin			text NOT NULL,
	dest			text NOT NULL,
	dep_delay		integer,
	arr_delay		integer,
	departure_delayed boolean,
	cancelled		boolean NOT NULL
);
COMMENT ON TABLE public.flights IS 'Published flights';

CREATE TABLE public.orders (
	row_audit_id	bigint NOT NULL,
	order_id		bigint NOT NULL,
	order_date		date NOT NULL,
	customer		text NOT NULL,
	amount			numeric(10, 2) NOT NULL
);
COMMENT ON TABLE public.orders IS 'Orders, landed by SQL alone';

CREATE TABLE public.orders_by_day (
	row_audit_id	bigint NOT NULL,
	order_date		date NOT NULL,
	orders			bigint NOT NULL,
	amount			numeric NOT NULL
);
CREATE TABLE public.orders_by_customer (
	row_audit_id	bigint NOT NULL,
	customer		text NOT NULL,
	orders			bigint NOT NULL,
	amount			numeric NOT NULL
);
CREATE TABLE public.order_totals (
	row_audit_id	bigint NOT NULL,
	orders			bigint NOT NULL,
	amount			numeric NOT NULL,
	agree			boolean NOT NULL
);
COMMENT ON TABLE public.order_totals IS 'One row per load: do the two summaries agree?';

-- A plain insert, on purpose: doing a step twice would show.
CREATE TABLE public.steps_done (
	run_id			bigint NOT NULL,
	step			text NOT NULL,
	done_at			timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE public.steps_done IS 'Steps of the pipeline three_steps that were carried out';
