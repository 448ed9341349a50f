CREATE TABLE store (
    uid TEXT NOT NULL
);

CREATE TABLE source (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);

INSERT INTO source VALUES (0, 'kfd');

ALTER TABLE session ADD COLUMN uid TEXT;
ALTER TABLE session ADD COLUMN item_base INTEGER;
ALTER TABLE session ADD COLUMN last_item INTEGER;
ALTER TABLE session ADD COLUMN filter TEXT;
ALTER TABLE session ADD COLUMN alive_boot_ns INTEGER;
ALTER TABLE session ADD COLUMN alive_unix_ns INTEGER;
ALTER TABLE session ADD COLUMN closed INTEGER NOT NULL DEFAULT 1;

ALTER TABLE gpu ADD COLUMN since_boot_ns INTEGER;
CREATE INDEX gpu_of_session ON gpu (session);

ALTER TABLE process ADD COLUMN life INTEGER;
CREATE INDEX process_of_session ON process (session);

ALTER TABLE event ADD COLUMN source INTEGER NOT NULL DEFAULT 0;
ALTER TABLE event ADD COLUMN tid INTEGER;
ALTER TABLE event ADD COLUMN clock_error_ns INTEGER;

ALTER TABLE gap ADD COLUMN source INTEGER NOT NULL DEFAULT 0;

ALTER TABLE batch ADD COLUMN boot_ns INTEGER;

CREATE TABLE not_kept (
    last_item INTEGER PRIMARY KEY,
    first_item INTEGER NOT NULL,
    session INTEGER NOT NULL,
    cause TEXT NOT NULL,
    from_boot_ns INTEGER,
    to_boot_ns INTEGER
);

DROP VIEW events;

CREATE VIEW events AS
SELECT
    event.id,
    strftime('%Y-%m-%dT%H:%M:%S', event.unix_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', event.unix_ns % 1000000000) AS time,
    event.unix_ns,
    coalesce(event_type.name, 'UNKNOWN') AS type,
    gpu.gpu_index, gpu.bdf, gpu.unique_id, gpu.partition_id,
    process.pid,
    process.name AS process,
    event.tid,
    CASE
        WHEN event.type IN (1, 12, 13)
        THEN substr(event.raw, 3 + instr(substr(event.raw, 3),
                                         CASE event.type WHEN 1 THEN ':' ELSE ' ' END))
    END AS thread,
    event.seq,
    CASE WHEN event.type BETWEEN 5 AND 11 THEN CAST(substr(event.raw, 3) AS INTEGER)
         ELSE event.received_boot_ns END AS boot_ns,
    CASE WHEN event.type BETWEEN 5 AND 11 THEN 'driver' ELSE 'receipt' END AS clock,
    event.received_boot_ns,
    EXISTS (SELECT 1 FROM doubtful WHERE doubtful.event = event.id) AS doubtful,
    event.raw,
    process.user, process.command, process.slurm_job, process.pod_uid, process.container_id,
    session.host, session.boot_id,
    session.uid AS session,
    event.id - session.item_base AS item,
    process.life,
    source.name AS source,
    event.clock_error_ns
FROM event
LEFT JOIN gpu ON gpu.id = event.gpu
JOIN session ON session.id = coalesce(
    gpu.session,
    (SELECT max(one.id) FROM session AS one WHERE one.first_item <= event.id))
LEFT JOIN event_type ON event_type.id = event.type
LEFT JOIN source ON source.id = event.source
LEFT JOIN process ON process.id = event.process;

CREATE VIEW blind AS
SELECT gap.id, gpu.session, gpu.bdf, gpu.partition_id, source.name AS source, gap.cause,
    gap.from_boot_ns, gap.to_boot_ns
FROM gap
JOIN gpu ON gpu.id = gap.gpu
LEFT JOIN source ON source.id = gap.source
UNION ALL
SELECT last_item, session, NULL, NULL, NULL, cause, from_boot_ns, to_boot_ns FROM not_kept;
