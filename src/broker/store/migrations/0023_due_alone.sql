-- It was found by this one before. (Alone: whoever builds an index lets others read and not write,
-- and to have nobody do either would have to wait for those who have read and want to write.)

drop index consumed_keep_until;
