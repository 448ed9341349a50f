CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    first_item INTEGER NOT NULL,
    host TEXT,
    boot_id TEXT,
    kernel TEXT,
    recorder TEXT NOT NULL,
    scope TEXT,
    started_boot_ns INTEGER NOT NULL,
    started_unix_ns INTEGER NOT NULL,
    ended_boot_ns INTEGER,
    ended_unix_ns INTEGER
);

CREATE TABLE gpu (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    gpu_index INTEGER NOT NULL,
    bdf TEXT NOT NULL,
    unique_id TEXT,
    partition_id INTEGER NOT NULL,
    kfd_id INTEGER NOT NULL,
    name TEXT
);

CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    name,
    host_pid INTEGER,
    started_boot_ns INTEGER,
    user TEXT,
    command,
    cgroup TEXT,
    slurm_job INTEGER,
    pod_uid TEXT,
    container_id TEXT,
    unit TEXT
);

CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    gpu INTEGER NOT NULL,
    process INTEGER,
    received_boot_ns INTEGER NOT NULL,
    unix_ns INTEGER NOT NULL,
    raw NOT NULL,
    type INTEGER,
    seq INTEGER NOT NULL
);

CREATE TABLE doubtful (
    event INTEGER PRIMARY KEY
);

CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    gpu INTEGER NOT NULL,
    cause TEXT NOT NULL,
    count INTEGER,
    from_boot_ns INTEGER NOT NULL,
    to_boot_ns INTEGER NOT NULL,
    unix_ns INTEGER NOT NULL
);

CREATE TABLE batch (
    last_item INTEGER PRIMARY KEY,
    first_item INTEGER NOT NULL,
    from_unix_ns INTEGER NOT NULL,
    to_unix_ns INTEGER NOT NULL,
    first_process INTEGER NOT NULL
);

CREATE TABLE event_type (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL
);

INSERT INTO event_type VALUES
    (1, 'VMFAULT'), (2, 'THERMAL_THROTTLE'), (3, 'GPU_PRE_RESET'), (4, 'GPU_POST_RESET'),
    (5, 'MIGRATE_START'), (6, 'MIGRATE_END'), (7, 'PAGE_FAULT_START'), (8, 'PAGE_FAULT_END'),
    (9, 'QUEUE_EVICTION'), (10, 'QUEUE_RESTORE'), (11, 'UNMAP_FROM_GPU'),
    (12, 'PROCESS_START'), (13, 'PROCESS_END');

CREATE VIEW events AS
SELECT
    event.id,
    strftime('%Y-%m-%dT%H:%M:%S', event.unix_ns / 1000000000, 'unixepoch')
        || printf('.%09dZ', event.unix_ns % 1000000000) AS time,
    event.unix_ns,
    coalesce(event_type.name, 'UNKNOWN') AS type,
    gpu.gpu_index, gpu.bdf, gpu.unique_id, gpu.partition_id,
    process.pid,
    CASE
        WHEN event.type IN (1, 12, 13)
        THEN substr(event.raw, 3 + instr(substr(event.raw, 3),
                                         CASE event.type WHEN 1 THEN ':' ELSE ' ' END))
        ELSE process.name
    END AS process,
    event.seq,
    CASE WHEN event.type BETWEEN 5 AND 11 THEN CAST(substr(event.raw, 3) AS INTEGER)
         ELSE event.received_boot_ns END AS boot_ns,
    CASE WHEN event.type BETWEEN 5 AND 11 THEN 'driver' ELSE 'receipt' END AS clock,
    event.received_boot_ns,
    EXISTS (SELECT 1 FROM doubtful WHERE doubtful.event = event.id) AS doubtful,
    event.raw,
    process.user, process.command, process.slurm_job, process.pod_uid, process.container_id,
    session.host, session.boot_id
FROM event
JOIN gpu ON gpu.id = event.gpu
JOIN session ON session.id = gpu.session
LEFT JOIN event_type ON event_type.id = event.type
LEFT JOIN process ON process.id = event.process;
