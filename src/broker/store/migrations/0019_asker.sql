-- Who asked, by issuer and subject: a person stays the same one where the directory comes to
-- call them otherwise. Of those from before this was known it is so where no directory had them.

alter table elevation add column asker text;

update elevation set asker = owner where owner not like 'person %';

create index elevation_asked on elevation (asker, asked_at, id);
create index elevation_asked_so on elevation (asker, role, access, ended_at);
create index elevation_asked_waiting on elevation (asker, role, asked_at, id)
    where access in ('pending', 'approved');
create index elevation_asked_had on elevation (asker, role, asked_at, id)
    where access in ('active', 'emergency-active');
create index elevation_asked_unreviewed on elevation (asker, role) where review = 'due';
create index elevation_owned_waiting on elevation (owner, role, asked_at, id)
    where access in ('pending', 'approved');
create index elevation_owned_had on elevation (owner, role, asked_at, id)
    where access in ('active', 'emergency-active');
create index elevation_owned_unreviewed on elevation (owner, role) where review = 'due';
