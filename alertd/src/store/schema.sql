-- Version 1. `body` is the JSON of the domain type; the other columns are for queries.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
-- Agents and the last accepted event of each, written in the same transaction as the changes it caused.
CREATE TABLE agent (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE alert (agent TEXT NOT NULL, service TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (agent, service)) STRICT, WITHOUT ROWID;
-- Group, timers, escalation, ack. `open` = 0: resolved, and everybody was notified of the recovery.
CREATE TABLE incident (number INTEGER PRIMARY KEY, open INTEGER NOT NULL, opened_us INTEGER NOT NULL, resolved_us INTEGER, body TEXT NOT NULL) STRICT;
CREATE INDEX incident_open ON incident (number) WHERE open = 1;
CREATE INDEX incident_resolved ON incident (resolved_us) WHERE open = 0;
CREATE TABLE told (incident INTEGER NOT NULL, receiver TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (incident, receiver)) STRICT, WITHOUT ROWID;
CREATE TABLE silence (number INTEGER PRIMARY KEY, ends_us INTEGER NOT NULL, body TEXT NOT NULL) STRICT;
CREATE TABLE outbox (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, incident INTEGER NOT NULL, receiver TEXT NOT NULL, state TEXT NOT NULL,
    first_try_us INTEGER, settled_us INTEGER, body TEXT NOT NULL) STRICT;
CREATE INDEX outbox_unsettled ON outbox (seq) WHERE settled_us IS NULL;
CREATE INDEX outbox_failed ON outbox (seq) WHERE state = 'failed';
CREATE INDEX outbox_incident ON outbox (incident, seq);
CREATE INDEX outbox_spent ON outbox (first_try_us) WHERE first_try_us IS NOT NULL;
CREATE TABLE history (id INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, incident INTEGER, kind TEXT NOT NULL, reason TEXT NOT NULL, author TEXT, text TEXT NOT NULL) STRICT;
CREATE INDEX history_at ON history (at_us, id);
CREATE INDEX history_incident ON history (incident, id) WHERE incident IS NOT NULL;
