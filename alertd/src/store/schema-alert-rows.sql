-- Version 5. In the order in which they first fire, so that alerts that come together share pages: by their names, a hundred of them were a
-- hundred pages of a commit. Nobody looks for one by its name here.
CREATE TABLE alert_by_row (id INTEGER PRIMARY KEY, agent TEXT NOT NULL, service TEXT NOT NULL, body TEXT NOT NULL) STRICT;
INSERT INTO alert_by_row (agent, service, body) SELECT agent, service, body FROM alert ORDER BY agent, service;
DROP TABLE alert;
ALTER TABLE alert_by_row RENAME TO alert;
