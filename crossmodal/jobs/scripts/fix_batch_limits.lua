-- Fix the max items per message of a batch, by queue, where it is not fixed yet.
-- reads and writes: the batch
-- KEYS[1]: the batch. ARGV 3 seconds to keep the limits of a batch without messages, then pairs of
--   a queue and the wanted limit
-- returns the limit in force for each queue, in the same order
local known = {}
for i = 4, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], 'most:' .. ARGV[i], ARGV[i + 1])
  table.insert(known, tonumber(redis.call('HGET', KEYS[1], 'most:' .. ARGV[i])))
end
if not redis.call('HGET', KEYS[1], 'messages') then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return known
