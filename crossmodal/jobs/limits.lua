-- Fix how many items the messages of a batch may have, by queue, unless somebody has already.
-- reads and writes: the batch
-- KEYS[1]: the batch. ARGV 3 for how many seconds that is kept of a batch of which nothing was
--   sent yet, then queues, each with how many are wanted
-- returns how many there may be of each, in the same order
local known = {}
for i = 4, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], 'most:' .. ARGV[i], ARGV[i + 1])
  table.insert(known, tonumber(redis.call('HGET', KEYS[1], 'most:' .. ARGV[i])))
end
if not redis.call('HGET', KEYS[1], 'messages') then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
return known
