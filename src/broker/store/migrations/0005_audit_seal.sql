-- The roots of the whole subtrees over the audit log, and a MAC over them and the size:
-- only whoever has the key-encryption key can say where the log ends.
alter table audit_head add column frontier bytea;
alter table audit_head add column seal bytea;
