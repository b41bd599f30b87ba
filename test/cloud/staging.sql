-- The table the Databricks job 101 loads through psql; run this before the job, as its owner.
-- The account in --database needs USAGE on the schema and SELECT, INSERT and DELETE on the table.

CREATE SCHEMA staging;

CREATE TABLE staging.flights
(
    year              integer     NOT NULL,
    month             integer     NOT NULL,
    day               integer     NOT NULL,
    dep_time          integer,
    sched_dep_time    integer     NOT NULL,
    dep_delay         integer,
    arr_time          integer,
    sched_arr_time    integer     NOT NULL,
    arr_delay         integer,
    carrier           text        NOT NULL,
    flight            integer     NOT NULL,
    tailnum           text,
    origin            text        NOT NULL,
    dest              text        NOT NULL,
    air_time          integer,
    distance          integer     NOT NULL,
    hour              integer     NOT NULL,
    minute            integer     NOT NULL,
    time_hour         timestamptz NOT NULL,
    row_audit_id      bigint      NOT NULL,
    flight_date       date        NOT NULL,
    departure_delayed boolean,
    cancelled         boolean     NOT NULL
);

CREATE INDEX flights_row_audit_id_idx ON staging.flights (row_audit_id);

COMMENT ON SCHEMA staging IS 'Rows as the transforming job delivers them';
COMMENT ON TABLE staging.flights IS 'Departures from New York, one row per flight and load';
COMMENT ON COLUMN staging.flights.row_audit_id IS 'The run that landed the row';
COMMENT ON COLUMN staging.flights.flight_date IS 'Day of departure, local time';
COMMENT ON COLUMN staging.flights.departure_delayed IS 'Left more than 15 minutes late; null when it never left';
COMMENT ON COLUMN staging.flights.cancelled IS 'The flight never left';
