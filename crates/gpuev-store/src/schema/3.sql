CREATE TABLE note (
    id INTEGER PRIMARY KEY,
    gpu INTEGER NOT NULL,
    event INTEGER,
    boot_ns INTEGER NOT NULL,
    unix_ns INTEGER NOT NULL,
    record TEXT NOT NULL,
    json TEXT NOT NULL
);

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
        FROM json_each(note.json, '$.health.temperatures')
        WHERE json_extract(value, '$.sensor') = 'edge') AS edge_millidegrees,
    (SELECT json_extract(value, '$.millidegrees')
        FROM json_each(note.json, '$.health.temperatures')
        WHERE json_extract(value, '$.sensor') = 'junction') AS junction_millidegrees,
    (SELECT json_extract(value, '$.millidegrees')
        FROM json_each(note.json, '$.health.temperatures')
        WHERE json_extract(value, '$.sensor') = 'memory') AS memory_millidegrees,
    json_extract(note.json, '$.health.power_microwatts') AS power_microwatts,
    json_extract(note.json, '$.health.power_cap_microwatts') AS power_cap_microwatts,
    json_extract(note.json, '$.health.gfx_busy_percent') AS gfx_busy_percent,
    json_extract(note.json, '$.health.memory_busy_percent') AS memory_busy_percent,
    json_extract(note.json, '$.health.vram_used') AS vram_used,
    json_extract(note.json, '$.health.vram_total') AS vram_total,
    json_extract(note.json, '$.health.ras') AS ras,
    json_extract(note.json, '$.health.retired_pages') AS retired_pages,
    session.host, session.boot_id
FROM note
JOIN gpu ON gpu.id = note.gpu
JOIN session ON session.id = gpu.session
WHERE json_extract(note.json, '$.health') IS NOT NULL;

CREATE VIEW ras AS
SELECT
    note.id,
    strftime('%Y-%m-%dT%H:%M:%S', note.unix_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', note.unix_ns % 1000000000) AS time,
    note.unix_ns,
    note.boot_ns,
    gpu.gpu_index, gpu.bdf, gpu.unique_id, gpu.partition_id,
    json_extract(note.json, '$.block') AS block,
    json_extract(note.json, '$.kind') AS kind,
    json_extract(note.json, '$.increase') AS increase,
    json_extract(note.json, '$.total') AS total,
    session.host, session.boot_id
FROM note
JOIN gpu ON gpu.id = note.gpu
JOIN session ON session.id = gpu.session
WHERE note.record = 'ras';
