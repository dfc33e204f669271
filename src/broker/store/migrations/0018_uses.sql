-- What of a request says who may approve it, so that many are told from one another without
-- a look at each; none for those from before this was known. And whether somebody acts for
-- whoever asked: 1 where that is so, or not known.

alter table elevation add column question text;
alter table elevation add column acted bigint not null default 1;

create index elevation_waiting on elevation (role, asked_at, id)
    where access in ('pending', 'approved');
create index elevation_had on elevation (role, asked_at, id)
    where access in ('active', 'emergency-active');
create index elevation_had_acted on elevation (asked_at, id)
    where acted = 1 and access in ('active', 'emergency-active');
create index elevation_unreviewed on elevation (role, asked_at, id) where review = 'due';
create index elevation_owned on elevation (owner, asked_at, id);
create index elevation_owned_so on elevation (owner, role, access, ended_at);
drop index elevation_access;
drop index elevation_review;
drop index elevation_owner;

-- What was done under a grant, summed up: all of it in one sealed document, which whoever
-- changes it names by its version. And which events of outside logs are in it: each counts
-- once.

create table elevation_use (
    elevation text not null primary key,
    version bigint not null,
    document text not null,
    seal bytea not null
);

create table elevation_use_event (
    elevation text not null,
    id text not null,
    primary key (elevation, id)
);
