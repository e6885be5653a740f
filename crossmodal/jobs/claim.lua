-- Take a delivery that is due, so that nobody else tries it for a while.
-- reads and writes: the delivery, the pending deliveries, their counts
-- KEYS[1]: the pending deliveries. ARGV 2 the delivery, 3 for how many seconds, 4 how many of one
--   owner may be tried at once
-- returns {'ok'}, or {'refused'} when it is not pending, not due, or somebody tries it, or when as
--   many of its owner are tried as may be: then it is due again in a moment
local key = prefix .. ':delivery:' .. id
if not redis.call('ZSCORE', KEYS[1], id) then return {'refused'} end
if redis.call('EXISTS', key) == 0 then
  count_lost(redis.call('ZREM', KEYS[1], id))
  return {'refused'}
end
local t = now()
local r = redis.call('HMGET', key, 'next_at', 'claimed_until', 'owner')
if tonumber(r[1] or 0) > t or tonumber(r[2] or 0) > t then return {'refused'} end
if r[3] and r[3] ~= '' then
  local tried = prefix .. ':webhooks:tried:' .. r[3]
  redis.call('ZREMRANGEBYSCORE', tried, '-inf', stamp(t))
  if redis.call('ZCARD', tried) >= tonumber(ARGV[4]) then
    redis.call('ZADD', KEYS[1], stamp(t + 1), id)
    return {'refused'}
  end
  redis.call('ZADD', tried, stamp(t + ARGV[3]), id)
  redis.call('EXPIRE', tried, ARGV[3])
end
redis.call('HSET', key, 'claimed_until', stamp(t + ARGV[3]))
redis.call('ZADD', KEYS[1], stamp(t + ARGV[3]), id)
return {'ok'}
