-- What people are told, on record together with what it tells of, and to whom it goes on which
-- channel.

create table notify_message (
    -- Of those with the same key the first one counts.
    key text not null primary key,
    -- The message as JSON.
    body text not null,
    at bigint not null,
    keep_until bigint not null,
    -- 1 once there is a row for each of its deliveries.
    spread bigint not null default 0
);

create index notify_message_spread on notify_message (spread, at);

create index notify_message_keep_until on notify_message (keep_until);

create table notify_delivery (
    message text not null references notify_message (key) on delete cascade,
    channel text not null,
    -- Somebody in the directory, or an address; empty where the channel is a place.
    addressee text not null,
    -- waiting, delivered or given-up.
    state text not null,
    -- How much of a hurry there is: what is less goes first.
    hurry bigint not null,
    -- When the message was written.
    at bigint not null,
    -- When it may be tried again. Whoever tries it moves this on by the time that they may take,
    -- so that somebody else goes on where they are killed.
    due_at bigint not null,
    attempts bigint not null default 0,
    -- Grows with every change. Whoever changes the row names what it was.
    turn bigint not null default 0,
    -- Why it could not be delivered the last time.
    why text,
    primary key (message, channel, addressee)
);

create index notify_delivery_due on notify_delivery (state, channel, hurry, due_at);
