-- Forget a job whose message could not be sent: for its submitter it was never accepted.
-- reads and writes: the job, its events, its queue's queued set, its idempotency key
-- returns {'ok'} or {'refused', state}
local r = redis.call('HMGET', job, 'state', 'attempt', 'queue', 'idempotency')
if r[1] ~= 'queued' or r[2] ~= '0' then return {'refused', r[1] or 'unknown'} end
redis.call('ZREM', queue_key(r[3], 'queued'), id)
redis.call('DEL', job, job .. ':events')
if r[4] then redis.call('DEL', r[4]) end
return {'ok'}
