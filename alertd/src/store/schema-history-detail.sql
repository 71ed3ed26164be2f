-- JSON of what a decision was about: of a transition the alert, of an ack the ack. Reckoned again by `alertctl replay`.
ALTER TABLE history ADD COLUMN detail TEXT;
