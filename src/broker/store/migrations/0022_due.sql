-- What was used up and is to be forgotten is looked for by its kind: that some are kept for
-- longer than others is in nobody's way.

create index consumed_due on consumed (kind, keep_until);
