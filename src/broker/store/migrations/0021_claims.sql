-- What a token says besides, as JSON, where it says something.
alter table audit_record add column claims text;
