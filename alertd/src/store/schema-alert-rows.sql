-- Version 5. Rows are in the order in which alerts first fire, so that alerts that arrive together share pages.
-- Ordered by name, a hundred of them changed a hundred pages in one commit. Nothing searches this table by name.
CREATE TABLE alert_by_row (id INTEGER PRIMARY KEY, agent TEXT NOT NULL, service TEXT NOT NULL, body TEXT NOT NULL) STRICT;
INSERT INTO alert_by_row (agent, service, body) SELECT agent, service, body FROM alert ORDER BY agent, service;
DROP TABLE alert;
ALTER TABLE alert_by_row RENAME TO alert;
