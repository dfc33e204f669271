-- The trace that a record belongs to, where there is one: 32 hexadecimal digits.

alter table audit_record add column trace_id text;
