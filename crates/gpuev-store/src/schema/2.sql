CREATE TABLE packed (
    last_item INTEGER PRIMARY KEY,
    events BLOB NOT NULL
);
