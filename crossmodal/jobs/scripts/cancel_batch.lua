-- Mark a batch as canceled, so that no more of its messages are accepted.
-- reads and writes: the batch
-- KEYS[1]: the batch. ARGV 3 seconds to keep the mark of a batch without messages, or '' not to
--   mark such a batch
-- returns the number of messages submitted so far
local messages = tonumber(redis.call('HGET', KEYS[1], 'messages') or 0)
if messages == 0 and ARGV[3] == '' then return 0 end
redis.call('HSET', KEYS[1], 'is_canceled', 1)
if messages == 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return messages
