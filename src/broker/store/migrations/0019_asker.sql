-- Who asked, by issuer and subject: a person stays the same one where the directory comes to
-- call them otherwise. Of those from before this was known it is so where no directory had them.

alter table elevation add column asker text;

update elevation set asker = owner where owner not like 'person %';

create index elevation_asked on elevation (asker, asked_at, id);
create index elevation_asked_so on elevation (asker, role, access, ended_at);
