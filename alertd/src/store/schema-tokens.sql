-- API tokens. `body` contains the SHA-256 of a token, never the token.
CREATE TABLE token (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
