-- Record the outcome of a try of a delivery, unless its record has expired.
-- reads and writes: the delivery, the pending deliveries, the counts of deliveries
-- KEYS[1]: the pending deliveries. ARGV 2 the delivery, 3 seconds until the next try or '',
--   4 the counter to increment, 5 seconds to keep its record after the last try,
--   6 ... fields and their values, '' to delete a field
-- returns {'ok', time of this try, time of the next try or ''}
local key = prefix .. ':delivery:' .. id
local t = now()
redis.call('HINCRBY', prefix .. ':webhooks:stats', ARGV[4], 1)
if ARGV[3] == '' then redis.call('ZREM', KEYS[1], id) end
if redis.call('EXISTS', key) == 0 then
  redis.call('ZREM', KEYS[1], id)
  return {'ok', stamp(t), ''}
end
redis.call('ZREM', prefix .. ':webhooks:tried:' .. (redis.call('HGET', key, 'owner') or ''), id)
redis.call('HDEL', key, 'next_at')
redis.call('HSET', key, 'tried_at', stamp(t))
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', key, ARGV[i])
  else
    redis.call('HSET', key, ARGV[i], ARGV[i + 1])
  end
end
if ARGV[3] == '' then
  redis.call('EXPIRE', key, ARGV[5])
  return {'ok', stamp(t), ''}
end
local next_at = stamp(t + ARGV[3])
redis.call('HSET', key, 'next_at', next_at)
redis.call('ZADD', KEYS[1], next_at, id)
return {'ok', stamp(t), next_at}
