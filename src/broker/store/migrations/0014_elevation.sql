-- Requests for a role, and what came of them. Whoever changes one names its version, so of
-- several at once one does. The document is sealed: whoever can write here makes no grants.

create table elevation (
    id text not null primary key,
    version bigint not null,
    -- ordinary, or emergency.
    path text not null,
    access text not null,
    review text not null,
    role text not null,
    -- For whom, whatever they are called at whichever issuer.
    owner text not null,
    asked_at bigint not null,
    -- When the clock has come to something; none where it never does.
    next_at bigint,
    -- When access ended; none before.
    ended_at bigint,
    document text not null,
    seal bytea not null
);

create index elevation_owner on elevation (owner, role, asked_at);
create index elevation_access on elevation (access, asked_at);
create index elevation_review on elevation (review, asked_at);
create index elevation_next on elevation (next_at) where next_at is not null;
create index elevation_ended on elevation (ended_at) where ended_at is not null;

-- The elevation that a record belongs to, where there is one.

alter table audit_record add column elevation text;

create index audit_record_elevation on audit_record (elevation, sequence)
    where elevation is not null;
