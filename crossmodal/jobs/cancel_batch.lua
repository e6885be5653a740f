-- Have no more of a batch's messages taken.
-- reads and writes: the batch
-- KEYS[1]: the batch. ARGV 3 for how many seconds that is kept of a batch of which nothing was
--   sent yet, or '' to leave such a batch alone
-- returns how many messages were sent of it
local messages = tonumber(redis.call('HGET', KEYS[1], 'messages') or 0)
if messages == 0 and ARGV[3] == '' then return 0 end
redis.call('HSET', KEYS[1], 'is_canceled', 1)
if messages == 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return messages
