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

-- Of a partition, what is known of the whole GPU only.
DROP VIEW health;

CREATE VIEW health AS
SELECT
    note.id,
    strftime('%Y-%m-%dT%H:%M:%S', note.unix_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', note.unix_ns % 1000000000) AS time,
    note.unix_ns,
    note.boot_ns,
    gpu.gpu_index, gpu.bdf, gpu.unique_id, gpu.partition_id,
    note.record,
    note.event,
    (SELECT json_extract(value, '$.millidegrees')
        FROM json_each(note.json, '$.health' || CASE
            WHEN json_extract(note.json, '$.health.whole_gpu') IS NULL THEN ''
            ELSE '.whole_gpu' END || '.temperatures')
        WHERE json_extract(value, '$.sensor') = 'edge') AS edge_millidegrees,
    (SELECT json_extract(value, '$.millidegrees')
        FROM json_each(note.json, '$.health' || CASE
            WHEN json_extract(note.json, '$.health.whole_gpu') IS NULL THEN ''
            ELSE '.whole_gpu' END || '.temperatures')
        WHERE json_extract(value, '$.sensor') = 'junction') AS junction_millidegrees,
    (SELECT json_extract(value, '$.millidegrees')
        FROM json_each(note.json, '$.health' || CASE
            WHEN json_extract(note.json, '$.health.whole_gpu') IS NULL THEN ''
            ELSE '.whole_gpu' END || '.temperatures')
        WHERE json_extract(value, '$.sensor') = 'memory') AS memory_millidegrees,
    coalesce(json_extract(note.json, '$.health.power_microwatts'),
        json_extract(note.json, '$.health.whole_gpu.power_microwatts')) AS power_microwatts,
    coalesce(json_extract(note.json, '$.health.power_cap_microwatts'),
        json_extract(note.json, '$.health.whole_gpu.power_cap_microwatts')) AS power_cap_microwatts,
    coalesce(json_extract(note.json, '$.health.gfx_busy_percent'),
        json_extract(note.json, '$.health.whole_gpu.gfx_busy_percent')) AS gfx_busy_percent,
    coalesce(json_extract(note.json, '$.health.memory_busy_percent'),
        json_extract(note.json, '$.health.whole_gpu.memory_busy_percent')) AS memory_busy_percent,
    coalesce(json_extract(note.json, '$.health.vram_used'),
        json_extract(note.json, '$.health.whole_gpu.vram_used')) AS vram_used,
    coalesce(json_extract(note.json, '$.health.vram_total'),
        json_extract(note.json, '$.health.whole_gpu.vram_total')) AS vram_total,
    coalesce(nullif(json_extract(note.json, '$.health.ras'), '[]'),
        json_extract(note.json, '$.health.whole_gpu.ras'),
        json_extract(note.json, '$.health.ras')) AS ras,
    coalesce(json_extract(note.json, '$.health.retired_pages'),
        json_extract(note.json, '$.health.whole_gpu.retired_pages')) AS retired_pages,
    session.host, session.boot_id
FROM note
JOIN gpu ON gpu.id = note.gpu
JOIN session ON session.id = gpu.session
WHERE json_extract(note.json, '$.health') IS NOT NULL;

CREATE VIEW blind AS
SELECT gap.id, gpu.session, gpu.bdf, gpu.partition_id, source.name AS source, gap.cause,
    gap.from_boot_ns, gap.to_boot_ns
FROM gap
JOIN gpu ON gpu.id = gap.gpu
LEFT JOIN source ON source.id = gap.source
UNION ALL
SELECT last_item, session, NULL, NULL, NULL, cause, from_boot_ns, to_boot_ns FROM not_kept;
