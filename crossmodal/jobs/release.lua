-- Give a running attempt up: the job waits again, at its old place in the queue.
-- reads and writes: the job, its events, its queue's queued and running sets, its lease
-- ARGV 3 attempt, 4 '1' when the attempt counts, 5 failure as JSON, 6 its code
-- returns {'ok'} or {'refused', state, attempt}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'created_at')
if r[1] ~= 'running' or r[2] ~= ARGV[3] then
  return {'refused', r[1] or 'unknown', r[2] or '0'}
end
-- The attempt number is the fence and only grows; what does not count is kept apart.
if ARGV[4] ~= '1' then redis.call('HINCRBY', job, 'uncounted', 1) end
redis.call('HSET', job, 'state', 'queued', 'failure', ARGV[5])
redis.call('ZREM', queue_key(r[3], 'running'), id)
redis.call('ZREM', leases, id)
redis.call('ZADD', queue_key(r[3], 'queued'), r[4], id)
event('queued', r[2], ARGV[6])
return {'ok'}
