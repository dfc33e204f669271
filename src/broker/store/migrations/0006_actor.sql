-- Who acted for the caller, where somebody did: ids, separated by spaces.

alter table audit_record add column actor text;
