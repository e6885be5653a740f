-- Delete the record of a job that has ended.
-- reads and writes: the job, its events, its owner's lists, what the owner has in its queue, the
--   dead letters
-- ARGV 3 max messages of one owner in the queue
-- returns {'ok'}, {'unknown'} or {'refused', state}
local r = redis.call('HMGET', job, 'state', 'owner', 'idempotency', 'queue')
if not r[1] then return {'unknown'} end
if r[1] == 'queued' or r[1] == 'running' then return {'refused', r[1]} end
redis.call('DEL', job, job .. ':events')
local list = prefix .. ':jobs:' .. (r[2] or '')
redis.call('ZREM', list, id)
redis.call('ZREM', list .. ':ended', id)
redis.call('ZREM', dead, id)
if r[2] then redis.call('ZREM', dead .. ':' .. r[2], id) end
redis.call('DEL', prefix .. ':letter:' .. id)
if r[3] then redis.call('DEL', r[3]) end
-- Its message may still be in the queue; `start` could no longer find its owner.
if r[2] and redis.call('SREM', queue_key(r[4], 'sent:' .. r[2]), id) == 1 then
  promote(r[4], tonumber(ARGV[3]))
end
return {'ok'}
